"""Failures of W&B's client, distinguished by what they mean for a run."""

from __future__ import annotations


def is_of_wandb(error: Exception) -> bool:
    """Returns whether W&B failed: not all of its errors share a class, and its files may fail like any others."""
    return isinstance(error, OSError) or type(error).__module__.partition(".")[0] == "wandb"


def means_lost_process(error: Exception) -> bool:
    """Returns whether nobody answers any more, as opposed to a refusal or a file that cannot be written."""
    return isinstance(error, ConnectionError) or type(error).__module__.startswith("wandb.sdk.")


def one_line(error: Exception) -> str:
    """Returns the text of an error on a single line."""
    return " ".join(str(error).split())
