"""``textkeep importance attribute BASE TUNED --data D``: which matrices are to blame for what was forgotten."""

from __future__ import annotations

import argparse
from functools import partial
from typing import TYPE_CHECKING

from ...inference.merging import base_values, merge
from ..command_parser import CommandParser
from ..errors import speaking_as
from ..options import MODEL_HELP, add_model_options, positive
from ..output import add_output_options, check_outputs, deliver, described, print_table, progress_bars, say
from .examples import add_data_options, batches_before_and_after, loaded

if TYPE_CHECKING:
    from ...importance.attribution import Attribution

ADDED = "nats added"  # to the loss: positive made it worse


def main(argv: list[str]) -> int:
    """Attributes the change of the loss on ``--data`` to the matrices that moved.

    Args:
        argv: The words after ``textkeep importance attribute``.

    Returns:
        The exit code.
    """
    arguments = _parser().parse_args(argv)
    check_outputs(arguments)
    from ...importance.attribution import attribute
    from ...runs.pictures.measurements import plot_attribution

    base = loaded(arguments.base, arguments.device, arguments.dtype)
    tuned = loaded(arguments.tuned, arguments.device, arguments.dtype)
    batches = batches_before_and_after(base, tuned, arguments)
    with speaking_as("importance"):
        llm = merge(tuned)
        values = base_values(base, llm)
    with progress_bars() as progress:
        found = attribute(
            llm,
            values,
            batches,
            nodes=arguments.nodes,
            reverts=arguments.reverts,
            seed=arguments.seed,
            progress=progress,
        )
    record = described("attribute", arguments, found)
    deliver(record, arguments, partial(plot_attribution, found), partial(_print, found, arguments.show))
    return 0


def _print(found: Attribution, count: int) -> None:
    from ...importance.reverts import blamed

    change = found.loss_after - found.loss_before
    title = (
        f"loss {found.loss_before:.3f} -> {found.loss_after:.3f} ({change:+.3f} [{found.change_low:+.3f}, "
        f"{found.change_high:+.3f}]) on {found.examples} examples, {found.nodes} nodes, "
        f"completeness error {found.completeness_error:+.1%}"
    )
    print_table(title, ["layer", ADDED], ([name, f"{value:+.4f}"] for name, value in found.layers.items()))
    to_blame = blamed(found.parameters)
    better = blamed({name: -nats for name, nats in found.parameters.items()})
    for names, told in ((to_blame, "to blame: they made the loss worse"), (better, "made the loss better")):
        caption = f"{len(names)} of {len(found.parameters)} parameters {told}; the largest {min(count, len(names))}"
        print_table(caption, ["parameter", ADDED], ([n, f"{found.parameters[n]:+.4f}"] for n in names[:count]))
    rows = ([r.what, _named(r.names), f"{r.predicted:+.4f}", f"{r.recovered:+.4f}"] for r in found.reverts)
    if found.reverts:
        head = ["", "parameters", "predicted", "loss regained"]
        print_table("check: those most to blame, reverted to the base values", head, rows)
    elif not to_blame:
        say("no parameter made the loss worse: there is nothing to revert, and no check")
    if not found.complete:
        say("the parts do not add up to the change of the loss (error above 5 %): do not trust them; try more --nodes")


def _named(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 4 else f"{names[0]} and {len(names) - 1} more"


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(prog="textkeep importance attribute", description=__doc__)
    parser.add_argument("base", metavar="BASE", help=f"model before tuning: {MODEL_HELP}")
    parser.add_argument("tuned", metavar="TUNED", help="model after tuning: the same kinds, or an audio LLM")
    add_data_options(parser, examples=32, modalities=("text",))
    parser.add_argument("--nodes", type=positive, default=4, help="Gauss-Legendre nodes to start with (default: 4)")
    parser.add_argument(
        "--reverts",
        type=positive,
        default=3,
        help="number of matrices to revert as a check, the worst first (default: 3)",
    )
    listed = "parameters to list, of those to blame and of the others (default: 12)"
    parser.add_argument("--show", type=positive, default=12, help=listed)
    add_output_options(parser)
    add_model_options(parser)
    return parser
