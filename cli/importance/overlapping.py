"""``textkeep importance overlap SNAPSHOT BASE TUNED``: did the weights change where they were important?"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..command_parser import CommandParser
from ..options import MODEL_HELP, add_model_options, positive
from ..output import add_output_options, check_outputs, deliver, described, print_table, progress_bars
from .examples import loaded
from .showing import find_matrix

if TYPE_CHECKING:
    from ...importance.overlap import ChangeOverlap


def main(argv: list[str]) -> int:
    """Compares the change of each matrix with its importance.

    Args:
        argv: The words after ``textkeep importance overlap``.

    Returns:
        The exit code.
    """
    arguments = _parser().parse_args(argv)
    check_outputs(arguments)
    from ...importance import Snapshot
    from ...importance.changes import Changes
    from ...importance.overlap import OverlapTest, change_overlap
    from ...runs.pictures.heat_maps import plot_overlap

    snapshot = Snapshot.load(arguments.snapshot)
    estimator = arguments.estimator or snapshot.meta["estimators"][0]
    drawn = find_matrix(snapshot, arguments.matrix) if arguments.matrix else None
    base, tuned = (loaded(name, arguments.device, arguments.dtype).llm for name in (arguments.base, arguments.tuned))
    changes = Changes(base, tuned, snapshot.meta["options"].get("include", ()))
    with progress_bars() as progress:
        matrices = change_overlap(
            snapshot,
            changes,
            estimator,
            ranks=changes.ranks(),
            shuffles=arguments.shuffles,
            draws=arguments.draws,
            seed=arguments.seed,
            progress=progress,
        )
    name = drawn or max(matrices, key=lambda m: m.norm).name

    def draw(path: Path) -> None:
        plot_overlap(snapshot, estimator, matrices, name, changes[name], path)

    record = described("overlap", arguments, OverlapTest(estimator, matrices))
    deliver(record, arguments, draw, partial(_print, estimator, matrices))
    return 0


def _print(estimator: str, matrices: Sequence[ChangeOverlap]) -> None:
    kinds = list(dict.fromkeys(m.kind for m in matrices))
    adapted = any(m.rows.random_median is not None for m in matrices)
    heads = ["kind", "matrices", "rows", "beyond chance", "columns", "beyond chance", "shared", "shuffled"]
    heads += ["random rows", "random columns", "random shared"] if adapted else []
    rows = [_row(kind, [m for m in matrices if m.kind == kind], adapted) for kind in kinds]
    rows.append(_row("all", matrices, adapted))
    print_table(f"{estimator} and |change|: medians over matrices", heads, rows)
    print("rows, columns: rank correlation of the line sums; beyond chance: matrices above the shuffled 95 %")
    print("shared: top weights also among as many that changed most; shuffled: the same with lines shuffled")
    if adapted:
        print("random: medians of random adapters of the same rank, and matrices that beat 95 % of them")


def _row(label: str, matrices: Sequence[ChangeOverlap], adapted: bool) -> list[str]:
    cells = [label, str(len(matrices))]
    for lines in ([m.rows for m in matrices], [m.columns for m in matrices]):
        beyond = sum(line.spearman > line.shuffled_p95 for line in lines)
        cells += [_median([line.spearman for line in lines]), f"{beyond} of {len(lines)}"]
    cells += [_median([m.shared for m in matrices]), _median([m.shared_shuffled for m in matrices])]
    if adapted:
        for lines in ([m.rows for m in matrices], [m.columns for m in matrices]):
            beyond = sum((line.random_percentile or 0.0) >= 95 for line in lines)
            cells.append(f"{_median([line.random_median for line in lines])} ({beyond} of {len(lines)})")
        cells.append(_median([m.shared_random for m in matrices]))
    return cells


def _median(values: Sequence[float | None]) -> str:
    known: list[Any] = [value for value in values if value is not None]
    return f"{np.median(known):.2f}" if known else "-"


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(prog="textkeep importance overlap", description=__doc__)
    parser.add_argument(
        "snapshot",
        type=Path,
        metavar="SNAPSHOT",
        help="snapshot of BASE; it has a mask if it was probed with --top-fraction",
    )
    parser.add_argument("base", metavar="BASE", help=f"model before tuning: {MODEL_HELP}")
    parser.add_argument(
        "tuned", metavar="TUNED", help="model after tuning: the same kinds; the rank of a LoRA is detected"
    )
    parser.add_argument("--estimator", help="default: the first one in the snapshot")
    parser.add_argument("--matrix", help="part of the name of the matrix to draw (default: the one that changed most)")
    parser.add_argument(
        "--shuffles", type=positive, default=1000, help="number of shuffles of rows and columns (default: 1000)"
    )
    parser.add_argument(
        "--draws", type=positive, default=20, help="number of random updates to compare a LoRA with (default: 20)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of shuffles and random updates (default: 0)")
    add_output_options(parser)
    add_model_options(parser)
    return parser
