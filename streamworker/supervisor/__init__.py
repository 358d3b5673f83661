"""Several worker processes under one roof, and what tells the world of their health. The supervisor never imports the application."""
