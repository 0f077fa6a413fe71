"""TextKeep: lightning_modules."""
