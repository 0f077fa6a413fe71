"""``textkeep report RUN…`` or ``STUDY_DIR``: one self-contained HTML page about one or several runs, or a study."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path

from ...foundation.files import replacing
from ..replacing import add_overwrite_option, check_output

REPORT_FILE = "report.html"
MARK = "<!-- textkeep report of {} -->\n"
"""Last line of a page: the directories that it is about, as they are reached from its folder."""


def main(argv: list[str]) -> int:
    """Writes the report and prints where it is.

    Args:
        argv: The words after ``textkeep report``.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(prog="textkeep report", description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="run directory, the first is the reference; or one study's"
    )
    parser.add_argument(
        "-o", "--output", type=Path, help=f"the page to write (default: {REPORT_FILE} in the first run directory)"
    )
    parser.add_argument("--figures", type=Path, metavar="FOLDER", help="a study's figures as SVG files too")
    add_overwrite_option(parser)
    arguments = parser.parse_args(argv)

    from .study_data import is_study

    study = len(arguments.runs) == 1 and is_study(arguments.runs[0])
    if arguments.figures and not study:
        parser.error("--figures: only of a study (allowed: its directory; a page about runs has buttons for figures)")
    if study:
        return _report_study(arguments)
    from .page import Page
    from .run_data import load_runs

    runs = load_runs(arguments.runs)
    output = arguments.output or arguments.runs[0] / REPORT_FILE
    check_output("report: -o", output, arguments.overwrite or is_page_about(output, arguments.runs))
    write_page(Page(runs).render(), output, arguments.runs)
    for run in runs:
        for note in run.notes:
            print(f"{run.name}: {note}")
    print(f"report: {output} ({output.stat().st_size / 1e6:.1f} MB)")
    return 0


def _report_study(arguments: argparse.Namespace) -> int:
    from .study_page import MARKDOWN, NUMBERS, report_study

    output = arguments.output or arguments.runs[0] / REPORT_FILE
    replaced = arguments.overwrite or is_page_about(output, arguments.runs)
    check_output("report: -o", output, replaced)
    for name in (MARKDOWN, NUMBERS):
        check_output("report: beside the page:", output.with_name(name), replaced)
    check_output("report: --figures", arguments.figures, arguments.overwrite, folder=True)
    return report_study(arguments.runs[0], output, arguments.figures)


def is_page_about(output: Path, about: Sequence[Path]) -> bool:
    """Whether a page about the same directories is there: it is no loss, as it is made anew from what they hold."""
    return output.is_file() and output.read_bytes().endswith(mark(output, about).encode())


def mark(output: Path, about: Sequence[Path]) -> str:
    """The line that tells what a page is about."""
    folder = output.parent.resolve()
    names = [Path(os.path.relpath(path.resolve(), folder)).as_posix() for path in about]
    return MARK.format(json.dumps(names, ensure_ascii=False).replace("--", "-\\u002d"))


def write_page(text: str, output: Path, about: Sequence[Path] = ()) -> None:
    """Writes under a temporary name and renames, so that a browser never loads half a page.

    Args:
        text: The page.
        output: Where to.
        about: Directories that it is about, for its last line; none leaves the line out.

    Raises:
        OSError: If it cannot be written.
    """
    ending = mark(output, about) if about else ""
    with replacing(output) as temporary:
        temporary.write_text(text.rstrip("\n") + "\n" + ending, encoding="utf-8")
