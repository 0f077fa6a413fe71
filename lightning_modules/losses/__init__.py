"""Losses and divergences on answer tokens."""
