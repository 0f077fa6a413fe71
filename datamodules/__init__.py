"""TextKeep: datamodules."""
