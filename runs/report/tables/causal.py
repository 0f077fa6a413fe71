"""Is the gradient right? Its shift compared with that of the real effects."""

from __future__ import annotations

from collections.abc import Sequence

from ...run import Run
from ..causal import Beside, beside_ablations, ranked, shifted
from .table import DASH, Table

_NOTE = (
    "Ablation: the loss with a group (by default a whole layer) removed, minus the loss; its shares are of the "
    "positive part of the mean. JS: Jensen-Shannon distance of the layer shares, last measurement against the first, "
    "with its 90 % interval and the paired permutation's p. Order: rank correlation over the layers of the "
    "estimator's totals with the real effects; of the changes: of what each layer's share gained. Near 0, the gradient "
    "says nothing about what the layers do. Costs nothing: groups whose removal does not raise the loss, and their "
    "share of all effects."
)
_HEAD = ["run", "probe", "estimator", "JS, estimator", "JS, ablation", "order, first", "order, last", "of the changes"]


def causal_table(runs: Sequence[Run]) -> Table | None:
    """Builds one row per run, probe and estimator that was compared with an ablation; None without any."""
    rows = [[run.name, *_cells(beside)] for run in runs for beside in beside_ablations(run)]
    return Table("Gradient and ablation", [*_HEAD, "costs nothing"], rows, _NOTE) if rows else None


def _cells(found: Beside) -> list[str]:
    first, last, costless = found.first.get("causal"), found.last.get("causal"), found.ablation.get("costless")
    shifts = zip((found.last, found.ablation), found.tests, strict=True)
    return [
        found.probe,
        found.last["estimator"],
        *(shifted(line, test) if found.moved else DASH for line, test in shifts),
        ranked(first["now"]) if first else DASH,
        ranked(last["now"]) if last and found.moved else DASH,
        ranked(last["moved"]) if last and found.moved else DASH,
        f"{costless['groups']} of {costless['of']} ({costless['part']:.0%})" if costless else DASH,
    ]
