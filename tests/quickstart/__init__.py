"""The first steps of the real quickstart, recorded and replayed."""
