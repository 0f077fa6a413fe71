"""When a run measures, saves and reports."""
