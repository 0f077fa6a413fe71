"""``textkeep importance removal MODEL --data D``: perplexity with the top, random and bottom weights switched off."""

from __future__ import annotations

import argparse
from pathlib import Path

from .output import print_json, print_table, saying, write_json
from .subject import add_data_options, add_model_options, load_subject, read_batches


def main(argv: list[str]) -> int:
    """Runs the removal test; the loss is measured on other examples than those scored.

    Args:
        argv: The words after ``textkeep importance removal``.

    Returns:
        The exit code.
    """
    arguments = _parser().parse_args(argv)
    from ...importance.removal import removal_test

    subject = load_subject(arguments.model, arguments.device, arguments.dtype)
    batches = read_batches(subject, arguments)
    skip = 0 if arguments.evaluate else arguments.examples
    modalities = ("text", "speech") if subject.listener is not None else ("text",)
    evaluations = {m: read_batches(subject, arguments, arguments.evaluate, skip, m) for m in modalities}
    with saying() as progress:
        test = removal_test(
            subject.llm,
            batches,
            evaluations,
            estimator=arguments.estimator,
            fraction=arguments.fraction,
            scope=arguments.scope,
            progress=progress,
            maps_on_cpu=arguments.maps_on_cpu,
        )
    if arguments.output:
        write_json(test.as_dict(), arguments.output)
    if arguments.json:
        print_json(test.as_dict())
        return 0
    rows = (
        [r.removed, r.data, f"{r.perplexity:.4g}", f"{r.loss:.3f}", f"{r.increase:+.3f} [{r.low:+.3f}, {r.high:+.3f}]"]
        for r in test.rows
    )
    title = f"{arguments.fraction:.1%} of the weights off, by {test.estimator}, chosen per {test.scope}"
    print_table(title, ["off", "data", "perplexity", "loss", "increase, 90 % interval"], rows)
    for name, ordered in test.ordered.items():
        print(f"{name}: top > random > bottom {'holds' if ordered else 'does NOT hold'}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="textkeep importance removal", description=__doc__, allow_abbrev=False)
    parser.add_argument("model", metavar="MODEL", help="hub id, folder, asset:NAME, run directory or .ckpt file")
    add_data_options(parser, examples=32)
    parser.add_argument("--evaluate", help="data for the loss (default: the next examples of --data)")
    parser.add_argument("--estimator", default="taylor", help="whose scores choose (default: taylor)")
    parser.add_argument("--fraction", type=float, default=0.03, help="of the weights (default: 0.03, as in the paper)")
    parser.add_argument("--scope", choices=("matrix", "layer", "global"), default="matrix", help="what competes")
    parser.add_argument("--maps-on-cpu", action="store_true", help="keep the scores of all weights off the GPU")
    parser.add_argument("--json", action="store_true", help="JSON instead of a table")
    parser.add_argument("-o", "--output", type=Path, help="also write JSON here")
    add_model_options(parser)
    return parser
