"""``textkeep report RUN…`` or ``STUDY_DIR``: one self-contained HTML page about one or several runs, or a study."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..replacing import replacing

REPORT_FILE = "report.html"


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
    arguments = parser.parse_args(argv)

    from .study_data import is_study

    if len(arguments.runs) == 1 and is_study(arguments.runs[0]):
        from .study_page import report_study

        return report_study(arguments.runs[0], arguments.output, arguments.figures)
    if arguments.figures:
        parser.error("--figures: only of a study (allowed: its directory; a page about runs has buttons for figures)")
    from .page import Page
    from .run_data import load_runs

    runs = load_runs(arguments.runs)
    output = arguments.output or arguments.runs[0] / REPORT_FILE
    write_page(Page(runs).render(), output)
    for run in runs:
        for note in run.notes:
            print(f"{run.name}: {note}")
    print(f"report: {output} ({output.stat().st_size / 1e6:.1f} MB)")
    return 0


def write_page(text: str, output: Path) -> None:
    """Writes under a temporary name and renames, so that a browser never loads half a page.

    Raises:
        ValueError: If the output is a directory.
        OSError: If it cannot be written.
    """
    if output.is_dir():
        raise ValueError(f"-o {output}: is a directory; allowed: the name of an HTML file")
    with replacing(output) as temporary:
        temporary.write_text(text, encoding="utf-8")
