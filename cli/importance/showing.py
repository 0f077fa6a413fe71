"""``textkeep importance show DIR``: a snapshot as a table, JSON or a picture."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .output import print_json, print_table

if TYPE_CHECKING:
    from ...importance import Snapshot


def main(argv: list[str]) -> int:
    """Shows a snapshot.

    Args:
        argv: The words after ``textkeep importance show``.

    Returns:
        The exit code.
    """
    arguments = _parser().parse_args(argv)
    from ...importance import Snapshot
    from ...importance.structure import structure

    snapshot = Snapshot.load(arguments.folder)
    estimator = arguments.estimator or snapshot.estimators[0]
    snapshot.scores(estimator)  # refuses an estimator that was not measured
    if arguments.plot:
        from .plotting import plot_snapshot

        plot_snapshot(snapshot, estimator, arguments.plot)
        print(f"picture: {arguments.plot}")
    elif arguments.structure:
        rows = [item.as_dict() for item in structure(snapshot, estimator)]
        if arguments.json:
            print_json(rows)
        else:
            keys = list(rows[0])
            print_table(f"structure of {estimator}", keys, ([_cell(row[key]) for key in keys] for row in rows))
    elif arguments.json:
        print_json(_summary(snapshot, estimator, arguments.group))
    else:
        print_snapshot(snapshot, estimator, arguments.group)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="textkeep importance show", description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "folder", type=Path, metavar="DIR", help="snapshot folder, such as run/importance/speech/step=000120"
    )
    parser.add_argument("--estimator", help="default: the first of the snapshot")
    parser.add_argument("--group", choices=("layer", "kind", "matrix"), default="layer", help="default: layer")
    parser.add_argument("--structure", action="store_true", help="concentration on rows and columns instead of shares")
    parser.add_argument("--json", action="store_true", help="JSON instead of a table")
    parser.add_argument("--plot", type=Path, metavar="OUT.png", help="write a picture instead")
    return parser


def print_snapshot(snapshot: Snapshot, estimator: str, group: str) -> None:
    """Shares with bars, totals, loss and coverage."""
    shares = snapshot.shares(estimator, group)
    largest = max(shares.values())
    probe = snapshot.meta["probe"]
    title = (
        f"{snapshot.meta['name']}, step {snapshot.step}: {estimator}, {probe['examples']} examples, "
        f"loss {snapshot.loss:.3f}, total {snapshot.total(estimator):.4g}, coverage {snapshot.meta['coverage']:.1%}"
    )
    rows = ([label, f"{share:.2%}", "█" * round(30 * share / largest)] for label, share in shares.items())
    print_table(title, [group, "share", ""], rows)
    for name, reason in list(snapshot.meta["untapped"].items())[:5]:
        print(f"not measured: {name}: {reason}")


def _summary(snapshot: Snapshot, estimator: str, group: str) -> dict[str, Any]:
    kept = ("name", "step", "estimators", "options", "loss", "coverage", "untapped", "conservation", "model")
    return {
        **{key: snapshot.meta[key] for key in kept},
        "estimator": estimator,
        "total": snapshot.total(estimator),
        "shares": snapshot.shares(estimator, group),
    }


def _cell(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value if value is not None else "-")
