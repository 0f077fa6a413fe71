"""A trained model in use, from Python."""
