"""``textkeep importance probe MODEL --data PROBE -o DIR``: one measurement."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...foundation.errors import UserError
from ...foundation.outputs import check_output
from ..command_parser import CommandParser
from ..errors import speaking_as
from ..options import MODEL_HELP, add_model_options, not_negative
from ..output import add_output_options, print_json, progress_bars, say
from .examples import add_data_options, chosen_examples, loaded
from .showing import print_snapshot, snapshot_summary


def main(argv: list[str]) -> int:
    """Measures and writes a snapshot folder.

    Args:
        argv: The words after ``textkeep importance probe``.

    Returns:
        The exit code.
    """
    arguments = _parser().parse_args(argv)
    check_output("importance: --plot", arguments.plot, arguments.overwrite)
    if arguments.output.is_dir() and not is_snapshot(arguments.output):
        raise UserError(f"importance: -o {arguments.output} exists and is not a snapshot; allowed: a new folder")
    check_output("importance: -o", arguments.output, arguments.overwrite, folder=True)
    from ...importance.estimators import DEFAULT_ESTIMATORS, checked
    from ...runs.pictures.measurements import plot_snapshot

    estimators = checked(arguments.estimators.split(",") if arguments.estimators else DEFAULT_ESTIMATORS)
    model = loaded(arguments.model, arguments.device, arguments.dtype)
    with progress_bars() as progress, speaking_as("importance"):
        snapshot = model.probe(
            chosen_examples(model, arguments),
            arguments.modality,
            estimators,
            batch_size=arguments.batch_size,
            tokens=arguments.tokens,
            progress=progress,
            **_options(arguments, estimators),
        )
    snapshot.save(arguments.output)
    if arguments.plot:
        plot_snapshot(snapshot, estimators[0], arguments.plot)
        say(f"picture: {arguments.plot}")
    if arguments.json:
        print_json(snapshot_summary(snapshot, estimators[0], "layer"))
    else:
        print_snapshot(snapshot, estimators[0], "layer")
    say(f"snapshot: {arguments.output}")
    return 0


def _options(arguments: argparse.Namespace, estimators: Sequence[str]) -> dict[str, Any]:
    """Returns the command line's settings of the measurement."""
    from ...importance.estimators import ESTIMATORS

    return {
        "name": arguments.name or Path(arguments.data).stem,
        "include": tuple(arguments.include),
        "top_fraction": arguments.top_fraction,
        "keep_maps": tuple(n for n in estimators if ESTIMATORS[n].maps) if arguments.maps else (),
        "maps_on_cpu": arguments.maps_on_cpu,
        "vectors": arguments.vectors,
        "self_test": arguments.self_test,
        "ablate": arguments.ablate,
        "ablate_with": arguments.ablate_with,
        **({} if arguments.step is None else {"step": arguments.step}),
    }


def is_snapshot(folder: Path) -> bool:
    """Returns whether a snapshot may replace a folder: it is a snapshot, or empty."""
    return (folder / "meta.json").is_file() or not any(folder.iterdir())


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(prog="textkeep importance probe", description=__doc__)
    parser.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    add_data_options(parser, examples=32)
    parser.add_argument("-o", "--output", type=Path, required=True, help="snapshot folder to write")
    parser.add_argument(
        "--estimators",
        help="comma separated; MODULE:NAME for one of your own (default: the three that ImportanceTracker measures)",
    )
    parser.add_argument(
        "--include",
        nargs="*",
        choices=("embeddings", "norms"),
        default=[],
        help="also score these, beside the matrices",
    )
    parser.add_argument("--top-fraction", type=float, help="also keep a mask of this fraction of the weights")
    parser.add_argument("--maps", action="store_true", help="also keep the score of every single weight")
    parser.add_argument("--maps-on-cpu", action="store_true", help="keep those off the GPU while they are summed")
    parser.add_argument(
        "--vectors",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="keep row and column sums, which make up nearly all of a snapshot (default: on)",
    )
    parser.add_argument(
        "--self-test",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="check the scores against identities that they must obey (default: on)",
    )
    parser.add_argument(
        "--ablate",
        choices=("layer", "matrix", "head"),
        default="layer",
        help="what the estimator ablation removes, one at a time (default: layer)",
    )
    parser.add_argument(
        "--ablate-with",
        choices=("zero", "mean"),
        default="zero",
        help="what replaces it; mean: its mean output on these examples (default: zero)",
    )
    parser.add_argument(
        "--step",
        type=not_negative,
        help="optimizer step, for the record (default: that of the checkpoint or the export)",
    )
    parser.add_argument("--name", help="name of the probe, for the record (default: the data's name)")
    add_output_options(parser, None)
    add_model_options(parser)
    return parser
