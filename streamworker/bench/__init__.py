"""What `streamworker bench` measures: this machine, this server and the way between them, with a worker as it runs in production."""
