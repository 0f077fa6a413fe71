"""One line per (step, probe, estimator), which dashboards and reports read without opening snapshots."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from ..foundation.files import replacing
from ..foundation.run_names import importance_key, probe_key, step_of
from .agreement import Agreement, costless
from .coverage import by_reason, scored_part
from .shift import Shift
from .snapshot import Snapshot

JS_FIGURES = {"null": "null_p95", "p": "p", "expected": "expected", "corrected": "corrected"}
"""What is logged of the JS distance besides its value, as ``js_null`` and so on: fields of an ``Estimate``."""


def summary_line(
    snapshot: Snapshot, estimator: str, shift: Shift | None, causal: Agreement | None = None
) -> dict[str, Any]:
    """Summarises a measurement.

    Args:
        snapshot: The measurement.
        estimator: Name.
        shift: Against the reference, if there is one.
        causal: The agreement with the ablation of the same examples, if there is one.
    """
    own: dict[str, Any] = {"causal": causal.as_dict()} if causal else {}
    if estimator in snapshot.groups:
        groups, of, part = costless(snapshot, estimator)
        own["costless"] = {"groups": groups, "of": of, "part": part}
    return {
        "step": snapshot.step,
        "probe": snapshot.meta["name"],
        "estimator": estimator,
        "loss": snapshot.loss,
        "examples": len(snapshot.losses),
        "total": snapshot.total(estimator),
        "shares": snapshot.shares(estimator),
        "kinds": snapshot.shares(estimator, "kind"),
        "coverage": snapshot.meta["coverage"],
        "shares_of": scored_part(snapshot.meta["coverage"], by_reason(snapshot.meta["untapped"])),
        "seconds": snapshot.meta["seconds"],
        "shift": shift.as_dict() if shift else None,
        **own,
    }


def metric_values(line: dict[str, Any]) -> dict[str, float]:
    """Returns the line as metrics: ``importance/<probe>/<estimator>/js``, ``.../layer_07``, ``.../total``, loss."""
    figures = {"total": line["total"], **line["shares"]}
    if line["shift"]:
        metrics = line["shift"]["metrics"]
        figures |= {name: metric["value"] for name, metric in metrics.items()}
        more = {f"js_{name}": metrics["js"].get(field) for name, field in JS_FIGURES.items()}
        figures |= {name: value for name, value in more.items() if value is not None}
    if line.get("causal"):
        figures["causal_spearman"] = line["causal"]["now"]["value"]
    probe, estimator = line["probe"], line["estimator"]
    values = {importance_key(probe, estimator, name): value for name, value in figures.items()}
    return {probe_key(probe, "loss"): line["loss"], **values}


class SummaryFile:
    """``importance/summary.jsonl`` of a run.

    Args:
        path: The file; its folder is made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[dict[str, Any]]:
        """Reads all lines; none if there is no file. A line cut off by a crash is left out."""
        if not self.path.exists():
            return []
        lines = []
        for text in self.path.read_text(encoding="utf-8").splitlines():
            try:
                lines.append(json.loads(text))
            except ValueError:
                continue
        return lines

    def write(self, lines: list[dict[str, Any]]) -> None:
        """Replaces the file atomically."""
        with replacing(self.path) as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")

    def put(self, lines: list[dict[str, Any]]) -> None:
        """Adds lines; a line of the same step, probe and estimator is replaced."""
        new = {_key(line) for line in lines}
        self.write([line for line in self.read() if _key(line) not in new] + lines)

    def keep_until(self, step: int) -> None:
        """Drops lines and snapshots after ``step``: a run that continues from there produces them again."""
        lines = self.read()
        kept = [line for line in lines if line["step"] <= step]
        if len(kept) < len(lines):
            self.write(kept)
        for folder in self.path.parent.glob("*/step=*"):
            if (measured := step_of(folder.name)) is not None and measured > step and folder.is_dir():
                shutil.rmtree(folder)


def _key(line: dict[str, Any]) -> tuple[int, str, str]:
    return line["step"], line["probe"], line["estimator"]
