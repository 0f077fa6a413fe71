"""``textkeep importance verify MODEL --data D``: do the scores foretell what happens when weights are shrunk?"""

from __future__ import annotations

import argparse
from pathlib import Path

from .output import print_json, print_table, saying, write_json
from .subject import add_data_options, add_model_options, load_subject, positive, read_batches


def main(argv: list[str]) -> int:
    """Runs the faithfulness test.

    Args:
        argv: The words after ``textkeep importance verify``.

    Returns:
        The exit code.
    """
    arguments = _parser().parse_args(argv)
    from ...importance.faithfulness import verify

    subject = load_subject(arguments.model, arguments.device, arguments.dtype)
    batches = read_batches(subject, arguments)
    skip = 0 if arguments.evaluate else arguments.examples
    evaluation = read_batches(subject, arguments, arguments.evaluate, skip)
    with saying() as progress:
        found = verify(
            subject.llm,
            batches,
            evaluation,
            granularity=arguments.granularity,
            groups=arguments.groups,
            shrinks=tuple(arguments.shrink),
            progress=progress,
        )
    if arguments.output:
        write_json(found.as_dict(), arguments.output)
    if arguments.json:
        print_json(found.as_dict())
        return 0
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
    title = f"{len(found.groups)} groups ({found.granularity}), loss {found.loss:.3f} on other examples"
    heads = ["score", "shrunk by", "Spearman, 90 %", "precision, top 1/4", "worst in lower half", "worst"]
    print_table(title, heads, rows)
    halves = ", ".join(f"{name} {value:.2f}" for name, value in found.reliability.items())
    print(f"rank correlation between halves of the probe: {halves}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="textkeep importance verify", description=__doc__, allow_abbrev=False)
    parser.add_argument("model", metavar="MODEL", help="hub id, folder, asset:NAME, run directory or .ckpt file")
    add_data_options(parser, examples=32)
    parser.add_argument("--evaluate", help="data for the loss (default: the next examples of --data)")
    parser.add_argument("--granularity", choices=("matrix", "head"), default="matrix", help="default: matrix")
    parser.add_argument("--groups", type=positive, default=64, help="groups to shrink (default: 64)")
    parser.add_argument(
        "--shrink", type=float, nargs="+", default=[0.1, 1.0], help="amounts; 1 removes (default: 0.1 1)"
    )
    parser.add_argument("--json", action="store_true", help="JSON instead of a table")
    parser.add_argument("-o", "--output", type=Path, help="also write JSON here")
    add_model_options(parser)
    return parser
