"""``textkeep importance COMMAND``: where knowledge of text lives, how it moved, and whether to trust that."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib import import_module

from ...foundation.errors import UserError
from ..command_parser import CommandParser

COMMANDS: dict[str, tuple[str, str]] = {
    "probe": (".probing", "measure the importance of a model's weights and write a snapshot"),
    "compare": (".comparing", "shift between two snapshots, with intervals"),
    "show": (".showing", "a snapshot as a table or a picture"),
    "removal": (".removing", "perplexity with the top, random and bottom weights switched off"),
    "verify": (".verifying", "do the scores predict what happens when weights are shrunk?"),
    "attribute": (
        ".attributing",
        "which matrices are to blame for what a tuned model forgot",
    ),
    "heads": (".heads", "do the same attention heads matter for text and for speech?"),
    "overlap": (".overlapping", "did the weights change where they were important?"),
}


def main(argv: list[str]) -> int:
    """Runs one command.

    Args:
        argv: The words after ``textkeep importance``.

    Returns:
        The exit code.

    Raises:
        UserError: For an unknown command, or what the measurement itself refuses.
    """
    width = max(map(len, COMMANDS))
    listing = "\n".join(f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items())
    parser = CommandParser(
        prog="textkeep importance",
        description=f"{__doc__}\n\ncommands:\n{listing}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", metavar="COMMAND", help="one of the above; COMMAND --help explains it")
    parser.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS).required = False
    arguments = parser.parse_args(argv)
    if arguments.command not in COMMANDS:
        raise UserError(f"importance: no command {arguments.command!r}; allowed: {', '.join(COMMANDS)}")
    run: Callable[[list[str]], int] = import_module(COMMANDS[arguments.command][0], package=__package__).main
    try:
        return run(arguments.rest)
    except RuntimeError as error:
        if type(error).__name__ == "OutOfMemoryError":
            reason = "the device is out of memory; try a smaller --batch-size, --dtype bfloat16 or --device cpu"
            raise UserError(f"importance: {reason}") from error
        if str(error).startswith("importance:"):  # a measurement that refuses to be wrong
            raise UserError(str(error)) from error
        raise
