"""``textkeep report RUN…`` or ``STUDY_DIR``: makes a self-contained HTML page about runs or a study."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..foundation.outputs import check_output
from ..foundation.run_names import COMPARISON, REPORT
from ..runs.report.page_file import is_page_about, is_page_from, write_page
from .command_parser import CommandParser
from .options import add_overwrite_option
from .output import print_table


def main(argv: list[str]) -> int:
    """Writes the report, and prints its verdict and its path.

    Args:
        argv: The words after ``textkeep report``.

    Returns:
        The exit code.
    """
    parser = CommandParser(prog="textkeep report", description=__doc__)
    parser.add_argument(
        "runs",
        nargs="+",
        type=Path,
        metavar="RUN",
        help="run directories, the first being the reference; or the directory of one study",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        help=f"the page to write (default: {REPORT} in the run directory, of several runs {COMPARISON} in the first)",
    )
    parser.add_argument("--figures", type=Path, metavar="FOLDER", help="also write a study's figures as SVG files here")
    add_overwrite_option(parser)
    arguments = parser.parse_args(argv)

    from ..runs.report.study_data import is_study

    study = len(arguments.runs) == 1 and is_study(arguments.runs[0])
    if arguments.figures and not study:
        parser.error("--figures: only of a study (allowed: its directory; a page about runs has buttons for figures)")
    if study:
        return _report_study(arguments)
    from ..runs.report.run_page import run_page
    from ..runs.report.words import words
    from ..runs.run import open_runs

    runs = open_runs(arguments.runs)
    output = arguments.output or arguments.runs[0] / (REPORT if len(runs) == 1 else COMPARISON)
    own = is_page_about(output, arguments.runs) if arguments.output else is_page_from(output, arguments.runs[0])
    check_output(_named(arguments), output, arguments.overwrite or own)
    write_page(run_page(runs), output, arguments.runs)
    for run in runs:
        for note in run.notes:
            print(f"{run.name}: {note}")
    print("\n".join(words(runs)))
    print(f"report: {output} ({output.stat().st_size / 1e6:.1f} MB)")
    return 0


def _named(arguments: argparse.Namespace) -> str:
    return "report: -o" if arguments.output else "report:"


def _report_study(arguments: argparse.Namespace) -> int:
    from ..runs.report.study_page import MARKDOWN, NUMBERS, StudyReport

    output = arguments.output or arguments.runs[0] / REPORT
    replaced = arguments.overwrite or is_page_about(output, arguments.runs)
    check_output(_named(arguments), output, replaced)
    for name in (MARKDOWN, NUMBERS):
        check_output("report: beside the page:", output.with_name(name), replaced)
    check_output("report: --figures", arguments.figures, arguments.overwrite, folder=True)
    report = StudyReport(arguments.runs[0])
    report.write(output)
    for table in report.tables:
        print_table(table.title, table.head, table.rows)
    for note in report.notes:
        print(note)
    if arguments.figures:
        print(f"figures: {report.write_figures(arguments.figures)} in {arguments.figures}")
    print(f"report: {output} ({output.stat().st_size / 1e6:.1f} MB); tables: {output.with_name(MARKDOWN)}")
    return 0
