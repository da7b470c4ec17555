"""Floor 5, the demo: the whole path on one machine, every step checked."""
