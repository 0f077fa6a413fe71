"""Small real models, voices and facts from package registries: pinned, checked, converted and kept in one folder."""

from .location import home, locate

__all__ = ["home", "locate", "main"]


def main(argv: list[str]) -> int:
    """``textkeep assets``; see ``command.py``."""
    from .command import main as command

    return command(argv)
