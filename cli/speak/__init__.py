"""Turning text questions into spoken ones: engines behind one protocol, parallel, resumable, checked by ear."""

__all__ = ["main"]


def main(argv: list[str]) -> int:
    """``textkeep speak``; see ``command.py``."""
    from .command import main as command

    return command(argv)
