"""TextKeep: importance."""
