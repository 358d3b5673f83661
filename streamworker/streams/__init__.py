"""The only room that knows Redis: connections, typed verbs, reply shapes, key names and the scripts."""
