"""``textkeep watch RUN``: shows a run in the terminal, live.

It reads nothing but the run directory, so it needs no account or network, and works during and after the run, also from
another machine that sees the directory. Ctrl-C ends it without affecting the run.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ..foundation.errors import UserError
from .command_parser import CommandParser
from .options import finite

if TYPE_CHECKING:
    from rich.console import Console

    from ..runs.watch.run_view import RunView


def main(argv: list[str]) -> int:
    """Shows a run until Ctrl-C, or once.

    Args:
        argv: The words after ``textkeep watch``.

    Returns:
        The exit code.

    Raises:
        UserError: If the directory holds no run, or the estimator was not measured.
    """
    arguments = _parser().parse_args(argv)
    if arguments.every <= 0:
        raise UserError(f"--every {arguments.every:g}: a positive number of seconds is allowed")

    from ..runs.watch.run_view import RunView

    view = RunView(arguments.run)
    view.refresh()
    known = view.run.importance.estimators
    if arguments.estimator and known and arguments.estimator not in known:
        raise UserError(f"--estimator {arguments.estimator}: not measured in this run; allowed: {', '.join(known)}")

    from rich.console import Console

    from ..runs.watch.frame import frame

    console = Console()
    if arguments.once:
        console.print(frame(view, arguments.estimator, console.width, bar=console.is_terminal))
        return 0
    _follow(console, view, arguments.estimator, arguments.every)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="textkeep watch",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory")
    parser.add_argument("--once", action="store_true", help="print one frame and exit")
    parser.add_argument(
        "--every", type=finite, default=2.0, metavar="SECONDS", help="time between two updates (default: 2)"
    )
    parser.add_argument(
        "--estimator", metavar="NAME", help="whose layer profiles to draw (default: the first measured)"
    )
    return parser


def _follow(console: Console, view: RunView, estimator: str | None, every: float) -> None:
    from rich.live import Live

    from ..runs.watch.fitting import fitted
    from ..runs.watch.frame import frame

    with Live(console=console, screen=True, auto_refresh=False) as live:
        try:
            while True:
                live.update(fitted(view, estimator, console), refresh=True)
                time.sleep(every)
                view.refresh()
        except KeyboardInterrupt:
            pass
    console.print(frame(view, estimator, console.width))  # leave the last state in the terminal
