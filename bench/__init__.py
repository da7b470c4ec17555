"""Benches: our figures as ratios over a peer's, measured in the same run. `python -m bench.<name> [--json]`."""
