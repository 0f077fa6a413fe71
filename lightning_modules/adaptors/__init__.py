"""TextKeep: lightning_modules.adaptors."""
