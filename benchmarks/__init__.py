"""Benchmarks of time and memory, and the studies behind the docs; for a clone, not part of the package."""
