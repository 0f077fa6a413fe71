"""Where the runs' answers differ from the first one's on the same questions."""

from __future__ import annotations

from collections.abc import Sequence

from ....evaluation import MODALITIES, holm, mcnemar, paired_difference
from ....evaluation.paired_tests import FEW_DISCORDANT
from ...evaluations import Evaluation
from ...run import Run
from ..numbers import SPLITS, points
from .table import Table


def paired_table(runs: Sequence[Run]) -> Table | None:
    """Compares each run's last answers with the first run's, on shared items; None for a single run."""
    rows, p_values = [], []
    for stage, title in SPLITS.items():
        scored = [(run.name, _correct(run.evaluations[stage])) for run in runs if stage in run.evaluations]
        for name, theirs in scored[1:]:
            for modality in MODALITIES:
                reference = scored[0][1]
                shared = sorted(key for key in reference.keys() & theirs.keys() if key[1] == modality)
                if not shared:
                    continue
                before, after = [reference[key] for key in shared], [theirs[key] for key in shared]
                test = mcnemar(before, after)
                p_values.append(test.p_value)
                cells = [title, modality, f"{name} - {scored[0][0]}", points(paired_difference(before, after))]
                rows.append([*cells, str(test.gained), str(test.lost), str(len(shared)), f"{test.p_value:.2g}"])
    if not rows:
        return None
    rows = [[*row, f"{adjusted:.2g}"] for row, adjusted in zip(rows, holm(p_values), strict=True)]
    head = ["questions", "modality", "runs", "accuracy", "gained", "lost", "items", "p", "p (Holm)"]
    note = (
        f"Gained, lost: right in the run but not in {runs[0].name}, and the other way round. McNemar tests, "
        f"exact below {FEW_DISCORDANT} answers that differ: then more cautious than Tango's 95 % score intervals in "
        "brackets."
    )
    return Table("Differences on the same questions", head, rows, note)


def _correct(evaluation: Evaluation) -> dict[tuple[str, str], bool]:
    records = evaluation.predictions(evaluation.last["step"])
    return {(r.id, r.modality): r.correct for r in records if r.correct is not None}
