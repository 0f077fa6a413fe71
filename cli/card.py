"""``textkeep card RUN``: what a run kept and learned, for a model card, and for a team's CI."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from ..foundation.files import replacing
from ..foundation.outputs import check_output
from ..foundation.run_names import CARD, CARD_FIGURES
from .options import add_overwrite_option

FAILED = 1
"""Exit code where a limit is broken."""


def main(argv: list[str]) -> int:
    """Writes the section and the figures, prints the section, and holds the figures to the limits.

    Args:
        argv: The words after ``textkeep card``.

    Returns:
        The exit code: 1 if a limit is broken.
    """
    parser = argparse.ArgumentParser(prog="textkeep card", description=__doc__, allow_abbrev=False)
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FOLDER", help=f"folder of {CARD} and {CARD_FIGURES} (default: RUN)"
    )
    parser.add_argument(
        "--fail-if",
        action="append",
        default=[],
        metavar="LIMIT",
        help='exit with code 1 if this holds: "text_loss_increase > 0.02", or "speech_accuracy.low < 0.2" for a '
        "limit of the 95 %% interval; may be repeated",
    )
    add_overwrite_option(parser)
    arguments = parser.parse_args(argv)

    from ..runs.card.card import Card
    from ..runs.card.limit import Limit
    from ..runs.run import Run

    limits = [Limit.parse(text) for text in arguments.fail_if]
    card = Card(Run.open(arguments.run))
    broken = [limit for limit in limits if limit.broken_by(card.facts)]
    folder = arguments.output or arguments.run
    written = {CARD: card.markdown(), CARD_FIGURES: json.dumps(card.as_dict(), indent=1) + "\n"}
    for name in written if arguments.output else ():
        check_output("card: -o", folder / name, arguments.overwrite)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in written.items():
        with replacing(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    print(card.markdown())
    for limit in broken:
        value, low, high = card.facts[limit.name].limits
        print(f"textkeep card: {limit.text}: it is {value:.4g} [{low:.4g}, {high:.4g}]", file=sys.stderr)
    return FAILED if broken else 0
