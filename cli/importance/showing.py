"""``textkeep importance show DIR``: a snapshot as a table, JSON or a picture."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...foundation.errors import UserError
from ..command_parser import CommandParser
from ..output import add_output_options, check_outputs, print_json, print_table, say

if TYPE_CHECKING:
    from ...importance import Snapshot
    from ...importance.structure import Structure


def main(argv: list[str]) -> int:
    """Shows a snapshot.

    Args:
        argv: The words after ``textkeep importance show``.

    Returns:
        The exit code.
    """
    arguments = _parser().parse_args(argv)
    check_outputs(arguments)
    from ...importance import Snapshot
    from ...importance.structure import structure

    snapshot = Snapshot.load(arguments.folder)
    estimator = arguments.estimator or snapshot.meta["estimators"][0]
    snapshot.scores(estimator)  # refuses an estimator that was not measured
    matrix = find_matrix(snapshot, arguments.matrix) if arguments.matrix else None
    if matrix and not arguments.plot:
        raise UserError("importance: --matrix says what to draw; give --plot OUT.png too")
    found = structure(snapshot, estimator) if arguments.structure else []
    if arguments.plot:
        _draw(snapshot, estimator, found, matrix, arguments.plot)
        say(f"picture: {arguments.plot}")
    if arguments.structure:
        rows = [item.as_dict() for item in found]
        if arguments.json:
            print_json(rows)
        else:
            _print_structure(snapshot, estimator, found)
    elif arguments.json:
        print_json(snapshot_summary(snapshot, estimator, arguments.group))
    else:
        print_snapshot(snapshot, estimator, arguments.group)
    return 0


def _draw(snapshot: Snapshot, estimator: str, found: list[Structure], matrix: str | None, path: Path) -> None:
    """Draws the top region of a named matrix, the structure of all matrices on request, or else the layers' shares."""
    from ...runs.pictures.heat_maps import plot_matrix, plot_structure
    from ...runs.pictures.measurements import plot_snapshot

    if matrix:
        plot_matrix(snapshot, estimator, matrix, path)
    elif found:
        plot_structure(snapshot, estimator, found, path)
    else:
        plot_snapshot(snapshot, estimator, path)


def find_matrix(snapshot: Any, part: str) -> str:
    """Returns the name of the only matrix of a snapshot whose name contains ``part``.

    Raises:
        UserError: If there is none, or more than one.
    """
    names = [matrix.name for matrix in snapshot.table]
    found = [name for name in names if part in name] if part not in names else [part]
    if len(found) != 1:
        shown = ", ".join((found or names)[:3])
        raise UserError(f"importance: --matrix {part} matches {len(found)} matrices; allowed: one, such as {shown}")
    return found[0]


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(prog="textkeep importance show", description=__doc__)
    parser.add_argument(
        "folder", type=Path, metavar="DIR", help="snapshot folder, such as run/importance/speech/step=000120"
    )
    parser.add_argument("--estimator", help="default: the first one in the snapshot")
    parser.add_argument("--group", choices=("layer", "kind", "matrix"), default="layer", help="default: layer")
    parser.add_argument(
        "--structure", action="store_true", help="show how scores concentrate on rows and columns instead of shares"
    )
    add_output_options(parser, None)
    parser.add_argument("--matrix", help="draw where the top weights of one matrix lie: part of its name")
    return parser


def print_snapshot(snapshot: Snapshot, estimator: str, group: str) -> None:
    """Prints shares with bars, totals, loss and coverage."""
    from ...importance.coverage import by_reason, scored_part

    shares = snapshot.shares(estimator, group)
    largest = max(shares.values())
    probe = snapshot.meta["probe"]
    title = (
        f"{snapshot.heading}: {estimator}, {probe['examples']} examples, "
        f"loss {snapshot.loss:.3f}, total {snapshot.total(estimator):.4g}, coverage {snapshot.meta['coverage']:.1%}"
    )
    rows = ([label, f"{share:.2%}", "█" * round(30 * share / largest)] for label, share in shares.items())
    print_table(title, [group, "share", ""], rows)
    for line in causal_lines(snapshot, estimator):
        print(line)
    untapped = snapshot.meta["untapped"]
    if part := scored_part(snapshot.meta["coverage"], by_reason(untapped)):
        print(f"shares are {part}")
    for name, reason in list(untapped.items())[:5]:
        print(f"not measured: {name}: {reason}")
    if len(untapped) > 5:
        print(f"not measured: {len(untapped) - 5} more (--json lists all)")


def causal_lines(snapshot: Snapshot, estimator: str) -> Iterator[str]:
    """Reports what an ablation removed, what cost nothing, and how well other estimators agree with it."""
    from ...importance.agreement import agreement, costless
    from .shift_tables import ranked

    if estimator in snapshot.groups:
        options, (groups, of, part) = snapshot.meta["options"], costless(snapshot, estimator)
        yield (
            f"each {options['ablate']} removed in turn ({options['ablate_with']} in its place); shares are of the "
            f"positive part of the mean change of the loss. Without {groups} of {of} the loss does not rise "
            f"({part:.0%} of all effects)"
        )
        largest = sorted(zip(snapshot.effects(estimator), snapshot.units(estimator), strict=True), key=_by_size)[:5]
        yield "largest: " + ", ".join(f"{unit.name} {effect:+.3g}" for effect, unit in largest)
    if found := agreement(snapshot, estimator):
        yield f"rank correlation with {found.ablation} over the layers: {ranked(found.now)}"


def _by_size(pair: tuple[float, object]) -> float:
    return -abs(pair[0])


def snapshot_summary(snapshot: Snapshot, estimator: str, group: str) -> dict[str, Any]:
    """Returns a snapshot's results as JSON."""
    kept = ("name", "step", "estimators", "options", "loss", "coverage", "untapped", "conservation", "model")
    from ...importance.agreement import agreement

    found = agreement(snapshot, estimator)
    own: dict[str, Any] = {"causal": found.as_dict()} if found else {}
    if estimator in snapshot.groups:
        names = [unit.name for unit in snapshot.units(estimator)]
        own["effects"] = dict(zip(names, snapshot.effects(estimator).tolist(), strict=True))
    return {
        **{key: snapshot.meta[key] for key in kept},
        **own,
        "estimator": estimator,
        "total": snapshot.total(estimator),
        "shares": snapshot.shares(estimator, group),
    }


_MEASURES = {
    "Gini rows": "gini_rows",
    "Gini columns": "gini_columns",
    "entropy rows": "entropy_rows",
    "entropy columns": "entropy_columns",
    "in 5 % of lines": "line_share",
    "by chance": "line_share_chance",
    "stable rank": "stable_rank",
}


def _print_structure(snapshot: Snapshot, estimator: str, found: list[Structure]) -> None:
    """Prints medians over the matrices of each kind; ``--json`` has every matrix."""
    kind_of = {matrix.name: matrix.kind for matrix in snapshot.table}
    kinds = dict.fromkeys(kind_of.values())
    rows = []
    for kind in kinds:
        items = [item for item in found if kind_of[item.name] == kind]
        rows.append([kind, *(_median([getattr(item, key) for item in items]) for key in _MEASURES.values())])
    print_table(f"structure of {estimator}: medians over matrices", ["kind", *_MEASURES], rows)


def _median(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{statistics.median(known):.3f}" if known else "-"
