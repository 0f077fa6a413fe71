"""Removal tests found in the runs of a study."""

from __future__ import annotations

from ..study_data import StudyData
from .table import Table

_NOTE = (
    "Perplexity and loss after switching off the top, random or bottom part of the weights (textkeep importance "
    "removal; table 1 of arXiv 2509.23755). In brackets the bootstrap 90 % interval over examples."
)


def removal_table(data: StudyData) -> Table | None:
    """Builds one row per run and set of weights; None without a removal test."""
    rows = []
    runs = [*([data.untouched] if data.untouched else []), *data.runs]
    for run in runs:
        for test in run.removals:
            chosen = f"{100 * test['fraction']:.3g} %, {test['estimator']}, per {test['scope']}"
            for row in test["rows"]:
                increase = f"{row['increase']:+.3g} [{row['low']:.3g}, {row['high']:.3g}]"
                name = f"{run.variant}, seed {run.seed}"
                rows.append([name, chosen, row["data"], row["removed"], f"{row['perplexity']:.4g}", increase])
    head = ["run", "weights", "data", "off", "perplexity", "loss, increase"]
    return Table("Removal test", head, rows, _NOTE) if rows else None
