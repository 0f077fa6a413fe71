"""``textkeep importance verify MODEL --data D``: do the scores predict what happens when weights are shrunk?

For a run, the result is kept in ``importance/verification/`` of its directory, where ``textkeep report`` finds it.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...foundation.outputs import check_output
from ...foundation.run_names import IMPORTANCE, VERIFICATION
from ...inference import LoadedModel
from ..command_parser import CommandParser
from ..errors import speaking_as
from ..options import MODEL_HELP, add_model_options, positive
from ..output import (
    add_output_options,
    check_outputs,
    deliver,
    described,
    given_arguments,
    print_table,
    progress_bars,
    say,
)
from .examples import add_data_options, add_evaluation_options, evaluation_batches, loaded, read_batches

if TYPE_CHECKING:
    from ...importance.faithfulness import Verification


def main(argv: list[str]) -> int:
    """Runs the faithfulness test.

    Args:
        argv: The words after ``textkeep importance verify``.

    Returns:
        The exit code.
    """
    arguments = _parser().parse_args(argv)
    check_outputs(arguments)
    from ...importance.faithfulness import verify
    from ...runs.pictures.measurements import plot_verification

    model = loaded(arguments.model, arguments.device, arguments.dtype)
    arguments.output = arguments.output or _place(model, arguments)
    same = _is_the_same(arguments.output, model, arguments)
    check_output("importance: verify:", arguments.output, arguments.overwrite or same)
    batches = read_batches(model, arguments)
    evaluation = evaluation_batches(model, arguments, arguments.evaluate)
    with progress_bars() as progress, speaking_as("importance"), model.measuring(arguments.modality):
        found = verify(
            model.llm,
            batches,
            evaluation,
            **({"estimators": arguments.estimators.split(",")} if arguments.estimators else {}),
            granularity=arguments.granularity,
            groups=arguments.groups,
            shrinks=tuple(arguments.shrink),
            seed=arguments.seed,
            progress=progress,
        )
    record = {"step": model.origin.step, **described("verify", arguments, found)}
    deliver(record, arguments, partial(plot_verification, found), partial(_print, found))
    if arguments.output:
        say(f"written: {arguments.output}")
    return 0


def _place(model: LoadedModel, arguments: argparse.Namespace) -> Path | None:
    """Returns the file in which a run keeps its verifications; one for each kind."""
    if model.origin.run is None:
        return None
    name = f"{Path(arguments.data).stem}_{arguments.modality}_{arguments.granularity}.json"
    return model.origin.run / IMPORTANCE / VERIFICATION / name


def _is_the_same(output: Path | None, model: LoadedModel, arguments: argparse.Namespace) -> bool:
    """Returns whether the file holds the same verification of the same checkpoint, which a rerun would only repeat."""
    if output is None or not output.is_file():
        return False
    try:
        found = json.loads(output.read_text(encoding="utf-8"))
        kept = {"step": found["step"], "estimators": None, **found["arguments"]}  # earlier versions had no choice
    except (ValueError, KeyError, TypeError):
        return False
    return kept == {"step": model.origin.step, **given_arguments(arguments)}


def _print(found: Verification) -> None:
    rows = (
        [
            r.score,
            f"{r.shrink:g}",
            f"{r.spearman:.2f} [{r.low:.2f}, {r.high:.2f}]",
            f"{r.precision:.0%}",
            f"{r.worst_missed:.3g}",
            f"{r.worst:.3g}",
        ]
        for r in found.results
    )
    title = (
        f"{len(found.groups)} groups ({found.granularity}), scored on {found.examples} examples, "
        f"loss {found.loss:.3f} on {found.evaluated} others"
    )
    heads = ["score", "shrunk by", "Spearman, 90 %", "precision, top 1/4", "worst in lower half", "worst"]
    print_table(title, heads, rows)
    print("random: mean over 1000 random scores, with the band that 90 % of them fall into")
    print(f"rank correlation of the scores between halves of the probe: {_listed(found.reliability)}")
    print(f"of the effects between halves of the other examples: {_listed(found.effect_reliability)}")


def _listed(values: dict[Any, float | None]) -> str:
    return ", ".join(f"{name} {value:.2f}" if value is not None else f"{name} -" for name, value in values.items())


def _amount(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"must be a number above 0, at most 1, got {text!r}")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(prog="textkeep importance verify", description=__doc__)
    parser.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    add_data_options(parser, examples=32)
    add_evaluation_options(parser)
    parser.add_argument(
        "--estimators",
        help="comma separated, also MODULE:NAME; magnitude is always included (default: those of importance probe)",
    )
    parser.add_argument("--granularity", choices=("layer", "matrix", "head"), default="matrix", help="default: matrix")
    parser.add_argument("--groups", type=positive, default=64, help="number of groups to shrink (default: 64)")
    parser.add_argument(
        "--shrink",
        type=_amount,
        nargs="+",
        default=[0.1, 1.0],
        help="by how much to shrink; 1 removes the group (default: 0.1 1)",
    )
    add_output_options(parser, "where to write JSON (default: a run's own folder)")
    add_model_options(parser)
    return parser
