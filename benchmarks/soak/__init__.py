"""Kills a run again and again, and holds what is left against a run that nobody killed."""
