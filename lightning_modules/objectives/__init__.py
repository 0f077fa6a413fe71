"""TextKeep: lightning_modules.objectives."""
