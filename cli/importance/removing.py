"""``textkeep importance removal MODEL --data D``: perplexity with the top, random and bottom weights switched off."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...inference import LoadedModel
from ..command_parser import CommandParser
from ..errors import speaking_as
from ..options import MODEL_HELP, add_model_options
from ..output import add_output_options, check_outputs, deliver, described, print_table, progress_bars
from .examples import add_data_options, add_evaluation_options, evaluation_batches, loaded, modalities, read_batches

if TYPE_CHECKING:
    from ...importance.removal import RemovalTest


def main(argv: list[str]) -> int:
    """Runs the removal test; the loss is not measured on the examples that are scored.

    Args:
        argv: The words after ``textkeep importance removal``.

    Returns:
        The exit code.
    """
    arguments = _parser().parse_args(argv)
    check_outputs(arguments)
    from ...importance.removal import removal_test
    from ...runs.pictures.measurements import plot_removal

    model = loaded(arguments.model, arguments.device, arguments.dtype)
    batches = read_batches(model, arguments)
    evaluations = _evaluations(model, arguments)
    with progress_bars() as progress, speaking_as("importance"), model.measuring(arguments.modality):
        test = removal_test(
            model.llm,
            batches,
            evaluations,
            estimator=arguments.estimator,
            fraction=arguments.fraction,
            scope=arguments.scope,
            seed=arguments.seed,
            progress=progress,
            maps_on_cpu=arguments.maps_on_cpu,
        )
    record = described("removal", arguments, test)
    deliver(record, arguments, partial(plot_removal, test), partial(_print, test))
    return 0


def _evaluations(model: LoadedModel, arguments: argparse.Namespace) -> dict[str, Any]:
    """Builds ``general, text`` -> batches, for each data set and each modality in which the model can be asked."""
    found = {}
    for source in arguments.evaluate or [arguments.data]:
        for way in modalities(model, source, arguments.modality):
            found[f"{Path(source).stem}, {way}"] = evaluation_batches(model, arguments, source, way)
    return found


def _print(test: RemovalTest) -> None:
    rows = (
        [r.removed, r.data, f"{r.perplexity:.4g}", f"{r.loss:.3f}", f"{r.increase:+.3f} [{r.low:+.3f}, {r.high:+.3f}]"]
        for r in test.rows
    )
    title = f"{test.fraction:.1%} of the weights off, by {test.estimator}, chosen per {test.scope}"
    print_table(title, ["off", "data", "perplexity", "loss", "increase, 90 % interval"], rows)
    for name, ordered in test.ordered.items():
        print(f"{name}: top > random > bottom {'holds' if ordered else 'does NOT hold'}")


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(prog="textkeep importance removal", description=__doc__)
    parser.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    add_data_options(parser, examples=32)
    add_evaluation_options(parser, many=True)
    parser.add_argument("--estimator", default="taylor", help="whose scores choose, also MODULE:NAME (default: taylor)")
    parser.add_argument(
        "--fraction",
        type=float,
        default=0.03,
        help="fraction of the weights to switch off (default: 0.03, as in the paper)",
    )
    parser.add_argument(
        "--scope",
        choices=("matrix", "layer", "global"),
        default="matrix",
        help="what the weights compete within (default: matrix)",
    )
    parser.add_argument("--maps-on-cpu", action="store_true", help="keep the scores of all weights off the GPU")
    add_output_options(parser)
    add_model_options(parser)
    return parser
