"""A study of all arms on a small model, from its data to its test."""
