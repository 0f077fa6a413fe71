"""The LLM: where it comes from, its vocabulary, generation, reference and edits."""
