"""TextKeep: callbacks."""
