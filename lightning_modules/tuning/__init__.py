"""TextKeep: lightning_modules.tuning."""
