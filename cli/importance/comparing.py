"""``textkeep importance compare A B``: how importance moved from one snapshot, or one model, to another."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from ...foundation.errors import UserError
from ..command_parser import CommandParser
from ..options import MODEL_HELP, add_model_options, positive
from ..output import add_output_options, check_outputs, deliver
from .comparing_models import compare_models
from .examples import add_data_options
from .shift_tables import Shifts


def main(argv: list[str]) -> int:
    """Compares two snapshots of the same probe, or two models measured on the same text.

    Args:
        argv: The words after ``textkeep importance compare``.

    Returns:
        The exit code.
    """
    arguments = _parser().parse_args(argv)
    check_outputs(arguments)
    if arguments.data is not None:
        compare_models(arguments)
        return 0
    if arguments.snapshots:
        raise UserError("importance: --snapshots keeps the measurements of two models; give --data too")
    from ...importance import Snapshot
    from ...runs.pictures.measurements import plot_comparison

    before, after = (Snapshot.load(Path(folder)) for folder in (arguments.before, arguments.after))
    shifts = Shifts.between(before, after, arguments)
    deliver(shifts.as_list(), arguments, partial(plot_comparison, before, after, shifts.found), shifts.show)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(prog="textkeep importance compare", description=__doc__)
    parser.add_argument("before", metavar="A", help=f"reference: a snapshot; with --data a model: {MODEL_HELP}")
    parser.add_argument("after", metavar="B", help="snapshot of the same probe; with --data a model, or an audio LLM")
    parser.add_argument("--estimator", help="default: all that both have")
    parser.add_argument("--replicates", type=positive, default=1000, help="bootstrap samples (default: 1000)")
    add_output_options(parser)
    add_data_options(parser, examples=32, modalities=("text",), required=False)
    kept = "keep the measurements of two models, as DIR/before and DIR/after"
    parser.add_argument("--snapshots", type=Path, metavar="DIR", help=kept)
    add_model_options(parser)
    return parser
