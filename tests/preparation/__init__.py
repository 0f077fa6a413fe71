"""What is done once before training."""
