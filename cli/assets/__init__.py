"""TextKeep: cli.assets."""
