"""A W&B workspace that shows a project's runs."""
