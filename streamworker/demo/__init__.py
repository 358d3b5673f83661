"""The newcomer's first minute: a producer, two workers, failures, a crash, and a count of what became of every entry."""
