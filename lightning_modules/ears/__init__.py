"""What turns sound into positions of the LLM."""
