"""What goes wrong in W&B's client, told apart by what it means for a run."""

from __future__ import annotations


def is_of_wandb(error: Exception) -> bool:
    """Tells whether W&B failed: not all of its errors have a class in common, and its files may fail as any."""
    return isinstance(error, OSError) or type(error).__module__.partition(".")[0] == "wandb"


def means_lost_process(error: Exception) -> bool:
    """Tells whether nobody answers any more, and not that somebody refuses or a file cannot be written."""
    return isinstance(error, ConnectionError) or type(error).__module__.startswith("wandb.sdk.")


def one_line(error: Exception) -> str:
    """Gives the text of an error on a single line."""
    return " ".join(str(error).split())
