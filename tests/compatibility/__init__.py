"""Run directories and checkpoints of earlier versions still work."""
