"""The inside of a process in which a handler with `executor="process"` runs; its worker's side is `streamworker.worker.processes`."""
