"""The model and its parts: ears, LLM, tuning, objectives, losses, saving."""
