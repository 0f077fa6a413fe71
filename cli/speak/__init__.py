"""TextKeep: cli.speak."""
