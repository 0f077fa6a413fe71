"""``textkeep interpolate RUN``: text regained and speech lost between the untouched LLM and a run's.

For each alpha, the LLM's weights are (1 - alpha) untouched + alpha tuned; the adaptor stays the same. 0 is exactly the
untouched LLM, 1 exactly the run's. With --revert, some matrices of the tuned LLM are reverted instead. Each model
answers the run's own questions, spoken and written, and reads held-out text. The choice is yours: `textkeep export
--alpha A` writes one.

With --base, MODEL is not a run but an audio LLM or any text LLM that came from BASE: the command scores mixtures of
these two on --questions and held-out text, in BASE's chat template. `textkeep export MODEL --base BASE` writes one.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..foundation.errors import UserError
from ..foundation.files import write_json
from ..foundation.outputs import check_output
from ..foundation.quiet import log_level
from .command_parser import CommandParser
from .errors import speaking_as
from .interpolated import FIGURES, Point, print_points
from .options import add_overwrite_option, finite, not_negative, positive
from .output import deliver, picture, say
from .reverting import add_revert_options, read_culprits

if TYPE_CHECKING:
    from ..lightning_modules import SpeechLLM


def main(argv: list[str]) -> int:
    """Scores every model that was asked for.

    Args:
        argv: The words after ``textkeep interpolate``.

    Returns:
        The exit code.
    """
    arguments = _parser().parse_args(argv)
    points = _points(arguments)
    if arguments.base is not None:
        from .interpolating_models import interpolate_models

        interpolate_models(arguments, points)
        return 0
    config, folder = _checked(arguments)
    from ..inference.loading import load_run
    from ..runs.pictures.interpolation import plot_interpolation

    with speaking_as("interpolate"):
        model = load_run(arguments.run, arguments.device).require_speech_llm()
    rows = _score(model, config, folder, points, arguments)
    found = {
        "run": str(arguments.run),
        "split": arguments.split,
        "heldout": arguments.heldout,
        "points": [{"name": p.name, "alpha": p.alpha, "reverted": list(p.reverted), **rows[p.name]} for p in points],
    }
    write_json(found, folder / FIGURES)
    deliver(found, arguments, partial(plot_interpolation, found), partial(print_points, found, arguments.split))
    say(f"figures: {folder / FIGURES}")
    return 0


def _checked(arguments: argparse.Namespace) -> tuple[dict[str, Any], Path]:
    """Returns the run's configuration and the folder of the records.

    Raises:
        UserError: If it is not a run, has no such questions, or a result exists already.
    """
    if not arguments.run.exists():
        allowed = "a run directory of `textkeep fit`, or a model with --base"
        raise UserError(f"interpolate: {arguments.run} does not exist; allowed: {allowed}")
    if arguments.questions is not None:
        raise UserError("interpolate: a run is asked its own questions (--split); --questions goes with --base")
    from ..inference.run_settings import run_settings

    config = run_settings(arguments.run)
    if not config.get("data", {}).get("val" if arguments.split == "val" else "test"):
        where = f"{arguments.run}: its config.yaml names no data.{arguments.split}"
        raise UserError(f"interpolate: {where}; allowed: a run directory of `textkeep fit`")
    folder = arguments.out or arguments.run / "interpolation"
    check_output("interpolate: -o", folder / FIGURES, arguments.overwrite)
    check_output("interpolate: --plot", arguments.plot, arguments.overwrite)
    return config, folder


def _score(
    model: SpeechLLM, config: dict[str, Any], folder: Path, points: Sequence[Point], arguments: argparse.Namespace
) -> dict[str, Any]:
    """Scores each point; returns the figures by name."""
    from ..inference.edit_scoring import EditScorer, ScoringOptions, summaries
    from ..lightning_modules.llm.edits import change_of

    change = change_of(model)
    options = ScoringOptions(
        arguments.split, arguments.items, arguments.heldout, arguments.heldout_examples, arguments.heldout_skip
    )
    with speaking_as("interpolate"):
        scorer = EditScorer(model, config, folder, options)
    scored: dict[str, Any] = {}
    for number, point in enumerate(points, start=1):
        change.apply(point.alpha, point.reverted)
        with log_level("lightning.pytorch", logging.WARNING):  # a trainer per model would repeat this each time
            scored[point.name] = scorer.score(point.name)
        if not arguments.json:
            print(f"{number} of {len(points)}: {point.name}, {scored[point.name].seconds:.0f} s", flush=True)
    return summaries(scored)


def _points(arguments: argparse.Namespace) -> list[Point]:
    """Returns the sweep without duplicates: values of --top beyond the attribution's length coincide."""
    tops = arguments.top or []
    if (arguments.revert is None) != (not tops):
        raise UserError("interpolate: --revert and --top belong together; give both or neither")
    points = [Point(alpha) for alpha in sorted(set(arguments.alphas))]
    for top in sorted(set(tops)):
        points.append(Point(1.0, tuple(read_culprits(arguments.revert, top, "interpolate"))))
    return list(dict.fromkeys(points))


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="textkeep interpolate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory or .ckpt file in one; a model with --base")
    came = "the text LLM that MODEL came from: hub id, folder or asset:NAME"
    parser.add_argument("--base", metavar="BASE", help=came)
    asked = "with --base: questions to answer, a manifest or spoken-facts/SPLIT (default: none, text is only read)"
    parser.add_argument("--questions", metavar="DATA", help=asked)
    default = [0.0, 0.25, 0.5, 0.75, 1.0]
    parser.add_argument(
        "--alphas", type=finite, nargs="+", default=default, metavar="A", help="default: 0 0.25 0.5 0.75 1"
    )
    add_revert_options(parser, several=True)
    parser.add_argument("--split", choices=("val", "test"), default="val", help="the run's questions (default: val)")
    parser.add_argument(
        "--items",
        type=positive,
        help="at most this many questions (default: as many as the run's Retention asks; all with --base)",
    )
    parser.add_argument(
        "--heldout",
        default="spoken-facts/general",
        help="held-out text: a manifest or spoken-facts/SPLIT (default: %(default)s)",
    )
    parser.add_argument("--heldout-examples", type=positive, default=64, help="number of held-out texts (default: 64)")
    parser.add_argument(
        "--heldout-skip",
        type=not_negative,
        default=0,
        metavar="N",
        help="skip the first N texts, such as those that `importance attribute --data` has already used (default: 0)",
    )
    parser.add_argument("--device", help="cpu, cuda, ... (default: a GPU if there is one)")
    parser.add_argument("--json", action="store_true", help="JSON instead of a table")
    parser.add_argument("--plot", type=picture, metavar="OUT.png", help="also draw a picture")
    parser.add_argument(
        "-o", "--out", type=Path, help="folder of the records (default: RUN/interpolation; none with --base)"
    )
    add_overwrite_option(parser)
    return parser
