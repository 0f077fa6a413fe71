"""Tables, JSON and progress, common to the commands. Only the result goes to standard output."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..foundation.files import write_json
from ..foundation.outputs import check_output
from .options import add_overwrite_option

WHOLE = (re.compile(r"\[[^\]]*\]|<= \S+|\S+"), re.compile(r"\S+"))
"""What a cell of a table is not broken in: an interval, a p-value at its floor, a word; else a word."""
PICTURES = (".png", ".pdf", ".svg")


@contextmanager
def progress_bars() -> Iterator[Callable[[str, int, int], None]]:
    """Shows bars on the terminal, one per stage, with count and time left; nothing without a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(compact=True)
    bars: dict[str, TaskID] = {}
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:

        def report(what: str, done: int, total: int) -> None:
            if what not in bars:
                bars[what] = progress.add_task(what, total=total)
            progress.update(bars[what], completed=done, total=total)

        yield report


def picture(text: str) -> Path:
    """Reads the name of a picture; its suffix is checked before hours of measuring, not after."""
    path = Path(text)
    if path.suffix not in PICTURES:
        raise argparse.ArgumentTypeError(f"must end in {', '.join(PICTURES)}, got {text!r}")
    return path


def add_output_options(parser: argparse.ArgumentParser, output: str | None = "also write JSON here") -> None:
    """Adds ``--json``, ``--plot``, ``-o`` and ``--overwrite``, common to the commands of ``textkeep importance``.

    Args:
        parser: Gets them.
        output: What ``-o`` is; None leaves it out.
    """
    parser.add_argument("--json", action="store_true", help="JSON instead of tables")
    parser.add_argument("--plot", type=picture, metavar="OUT.png", help="also write a picture")
    if output:
        parser.add_argument("-o", "--output", type=Path, metavar="OUT.json", help=output)
    add_overwrite_option(parser)


def check_outputs(arguments: argparse.Namespace) -> None:
    """Refuses outputs of :func:`add_output_options` that already exist, before hours of measuring.

    Raises:
        UserError: If one exists.
    """
    check_output("importance: --plot", arguments.plot, arguments.overwrite)
    check_output("importance: -o", getattr(arguments, "output", None), arguments.overwrite)


def say(message: str) -> None:
    """Prints a remark to standard error, since it is not part of the result."""
    print(message, file=sys.stderr)


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Prints a line and a table below it, on standard output.

    Where the terminal is narrow, cells go on in further lines; names, numbers and intervals stay whole if they can.
    """
    from rich.console import Console
    from rich.table import Table

    print(title)
    console, cells = Console(), [list(columns), *(list(row) for row in rows)]
    table = Table()
    for number, (column, width) in enumerate(zip(columns, _widths(cells, console.width), strict=True)):
        table.add_column(column, justify="left" if number == 0 else "right", width=width, overflow="fold")
    for row in cells[1:]:
        table.add_row(*row)
    console.print(table)


def _widths(cells: Sequence[Sequence[str]], room: int) -> list[int | None]:
    """Gives each column what it needs, or takes from those with the most to spare; None where they have too little."""
    columns = list(zip(*cells, strict=True))
    widths = [max(map(len, column)) for column in columns]
    excess = sum(widths) + 3 * len(widths) + 1 - room  # with the lines between them
    for whole in WHOLE:
        least = [max(len(piece) for cell in column for piece in whole.findall(cell) or [""]) for column in columns]
        if excess > sum(widths) - sum(least):
            continue
        for _ in range(excess):
            widest = max(range(len(widths)), key=lambda number: (widths[number] - least[number], widths[number]))
            widths[widest] -= 1
        return list(widths)
    return [None] * len(columns)


def print_json(value: Any) -> None:
    """Prints one JSON document on standard output."""
    print(json.dumps(value, indent=1, ensure_ascii=False))


def deliver(record: Any, arguments: argparse.Namespace, draw: Callable[[Path], None], show: Callable[[], None]) -> None:
    """Writes, draws and prints a result, as the options of :func:`add_output_options` ask.

    Args:
        record: The result as JSON.
        arguments: Parsed.
        draw: Draws it to a file.
        show: Prints it as tables.
    """
    if getattr(arguments, "output", None):
        write_json(record, arguments.output)
    if arguments.plot:
        draw(arguments.plot)
        say(f"picture: {arguments.plot}")
    if arguments.json:
        print_json(record)
    else:
        show()


def given_arguments(arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns the arguments that a result depends on."""
    left_out = ("json", "plot", "output", "show", "overwrite")
    return {k: str(v) if isinstance(v, Path) else v for k, v in vars(arguments).items() if k not in left_out}


def described(command: str, arguments: argparse.Namespace, found: Any) -> dict[str, Any]:
    """Returns a result with what is needed to reproduce it: the command's arguments, versions and the time.

    Args:
        command: Name.
        arguments: Parsed.
        found: A dataclass with ``as_dict``.
    """
    from ..importance.storage import versions

    given = given_arguments(arguments)
    made = datetime.now(UTC).isoformat(timespec="seconds")
    return {"command": command, "arguments": given, "versions": versions(), "made": made, **found.as_dict()}
