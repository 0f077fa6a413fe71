"""What checkpoints, adaptor files and exports contain, and how they are read back."""
