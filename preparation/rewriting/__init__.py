"""Targets of a manifest in the words of the untouched LLM."""
