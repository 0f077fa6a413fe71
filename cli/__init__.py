"""TextKeep: cli."""
