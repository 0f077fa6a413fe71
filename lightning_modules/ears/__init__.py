"""What turns sound into positions of the LLM: encoders, adaptors and what a data module knows of them."""
