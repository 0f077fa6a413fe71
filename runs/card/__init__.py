"""What a run kept and learned, in a table for a model card and in numbers for a team's CI."""
