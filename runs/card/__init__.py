"""What a run kept and learned: a table for a model card, and numbers for a team's CI."""
