"""Written questions spoken by voices of packages, and checked by ear."""
