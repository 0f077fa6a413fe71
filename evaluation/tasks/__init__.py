"""Tasks for lm-eval that need no network: they read what ships with the package."""
