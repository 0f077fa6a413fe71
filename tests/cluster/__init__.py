"""Runs on a real SLURM cluster of two nodes, which is brought up on this machine."""
