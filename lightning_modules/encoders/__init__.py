"""TextKeep: lightning_modules.encoders."""
