"""A study: arms, seeds and grids of a plan, their jobs and their state."""
