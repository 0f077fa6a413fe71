"""Pictures as files: snapshots, shifts, tests of importance, and sweeps between two models."""
