"""TextKeep: evaluation."""
