"""TextKeep: cli.report."""
