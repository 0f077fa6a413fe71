"""Scores, intervals and paired tests, against oracles."""
