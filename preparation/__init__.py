"""What is done once before training: models, voices, data. Training never imports it."""
