"""What the command line and the dashboard share: looking into groups, and dealing with their dead letters."""
