"""``textkeep card RUN``: what a run kept and learned, for a model card, and for a team's CI.

With --base, MODEL may also be an audio LLM, or any text LLM, that came from BASE: both are measured here and now, and
the card says what it kept of BASE's text.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from ..foundation.errors import UserError
from ..foundation.files import replacing
from ..foundation.outputs import check_output
from ..foundation.run_names import CARD, CARD_FIGURES
from .command_parser import CommandParser
from .options import add_overwrite_option, positive

FAILED = 1
"""Exit code where a limit is broken."""


def main(argv: list[str]) -> int:
    """Writes the section and the figures, prints the section, and checks the figures against the limits.

    Args:
        argv: The words after ``textkeep card``.

    Returns:
        The exit code: 1 if a limit is broken.
    """
    arguments = _parser().parse_args(argv)
    from ..runs.card.card import Card
    from ..runs.card.limit import Limit
    from ..runs.run import Run

    limits = [Limit.parse(text) for text in arguments.fail_if]
    for name in (CARD, CARD_FIGURES) if arguments.output else ():
        check_output("card: -o", arguments.output / name, arguments.overwrite)
    if arguments.base is not None:
        from .model_card import card_of_model

        card, folder = card_of_model(arguments), arguments.output
    else:
        given = [name for name in ("text", "choices", "questions", "tasks") if getattr(arguments, name)]
        if given:
            raise UserError(f"card: a run's figures are those that it holds; --{given[0]} goes with --base")
        card, folder = Card.of_run(Run.open(Path(arguments.run))), arguments.output or Path(arguments.run)
    broken = [limit for limit in limits if limit.broken_by(card.facts)]
    if folder is not None:
        written = {CARD: card.markdown(), CARD_FIGURES: json.dumps(card.as_dict(), indent=1) + "\n"}
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in written.items():
            with replacing(folder / name) as temporary:
                temporary.write_text(text, encoding="utf-8")
    print(card.markdown())
    for limit in broken:
        value, low, high = card.facts[limit.name].limits
        print(f"textkeep card: {limit.text}: it is {value:.4g} [{low:.4g}, {high:.4g}]", file=sys.stderr)
    return FAILED if broken else 0


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="textkeep card",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", metavar="RUN", help="run directory; any model with --base")
    came = "the text LLM that MODEL came from: hub id, folder or asset:NAME"
    parser.add_argument("--base", metavar="BASE", help=came)
    places = f"folder of {CARD} and {CARD_FIGURES} (default: RUN; none with --base)"
    parser.add_argument("-o", "--output", type=Path, metavar="FOLDER", help=places)
    parser.add_argument(
        "--fail-if",
        action="append",
        default=[],
        metavar="LIMIT",
        help='exit with code 1 if this holds: "text_loss_increase > 0.02", or "speech_accuracy.low < 0.2" for a '
        "limit of the 95 %% interval; may be repeated",
    )
    add_overwrite_option(parser)
    measured = parser.add_argument_group("what is measured, with --base")
    texts = (
        "plain texts to read; the first one's rise of the loss is text_loss_increase (default: plain-text/evaluation)"
    )
    measured.add_argument("--text", nargs="+", metavar="DATA", help=texts)
    choices = "multiple choice, written; none for none (default: spoken-facts/choices)"
    measured.add_argument("--choices", metavar="DATA", help=choices)
    asked = "questions to answer, written, and spoken if the model can listen (default: none)"
    measured.add_argument("--questions", metavar="DATA", help=asked)
    measured.add_argument("--tasks", nargs="+", metavar="TASK", help="tasks of lm-eval too (textkeep[lm-eval])")
    measured.add_argument("--limit", type=positive, help="at most so many items of each set (default: all)")
    scored = "texts on which importance is measured (default: 32)"
    measured.add_argument("--examples", type=positive, default=32, help=scored)
    measured.add_argument("--batch-size", type=positive, default=8, help="examples per batch (default: 8)")
    measured.add_argument("--device", help="cpu, cuda, ... (default: a GPU if there is one)")
    return parser
