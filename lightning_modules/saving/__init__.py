"""What a checkpoint, an adaptor file and an export hold, and how they are read back."""
