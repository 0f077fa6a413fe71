"""A run in the terminal, live, from its directory."""
