"""Kills a run again and again, and compares the result with an undisturbed run."""
