"""The figures of a run, each with its interval and what it was measured on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ...foundation.run_names import stage_key
from ..evaluations import Evaluation
from ..report.movements import movements
from ..report.numbers import SPLITS, Limits
from ..report.plain_text import scored_texts
from ..run import Run

TEXT_LOSS_INCREASE = "text_loss_increase"
"""Name of the main figure: what learning speech cost in text."""
BENCHMARK = "lm-eval/"
"""Prefix of the names of lm-eval's figures."""


@dataclass(frozen=True)
class Fact:
    """A figure.

    Attributes:
        name: Its name in limits: letters, digits, ``_``, ``-``, ``.`` and ``/``.
        limits: With its 95 % limits; infinite if unknown.
        where: What it was measured on.
        p: Of its test, if there is one.
        test: The test in words.
    """

    name: str
    limits: Limits
    where: str
    p: float | None = None
    test: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Returns it for JSON; unknown values are null."""
        value, low, high = (part if math.isfinite(part) else None for part in self.limits)
        return {"value": value, "low": low, "high": high, "on": self.where, "p": self.p}


def facts(run: Run) -> dict[str, Fact]:
    """Collects the figures of a run directory by name: first lost text, then scores, then shifts of importance.

    Scores are those of the test questions, or of validation if there was no test.
    """
    found: dict[str, Fact] = {}
    for fact in (*_text(run), *_scores(run), *_shifts(run)):
        found.setdefault(fact.name, fact)
    return found


def _text(run: Run) -> Iterator[Fact]:
    """Yields the rise of the loss on each plain text: on scored sets, or on probes if no set was scored."""
    for name, evaluation in scored_texts(run).items():
        limits = evaluation.value(evaluation.last, stage_key(name, "loss_change"))
        if limits is not None:
            where = f"{evaluation.last['items']} passages of {name}, nats a token"
            yield Fact(TEXT_LOSS_INCREASE, limits, where)
            yield Fact(f"{TEXT_LOSS_INCREASE}/{name}", limits, where)
    for moved in movements(run):
        if moved.plain and moved.loss_change is not None:
            where = f"{moved.last['examples']} passages of probe {moved.probe}, nats a token"
            yield Fact(TEXT_LOSS_INCREASE, moved.loss_change, where)
            yield Fact(f"{TEXT_LOSS_INCREASE}/{moved.probe}", moved.loss_change, where)


def _scores(run: Run) -> Iterator[Fact]:
    stage = "test" if "test" in run.evaluations or run.sets("test") else "val"
    yield from _of(run.evaluation(stage), "", f"{SPLITS[stage]} questions")
    for name in run.sets(stage):
        yield from _of(run.evaluation(stage, name), f"{name}/", f"items of {name}")


def _of(evaluation: Evaluation, prefix: str, where: str) -> Iterator[Fact]:
    """Yields every figure of the latest evaluation that has limits."""
    if not evaluation.rows:
        return
    row = evaluation.last
    before = stage_key(evaluation.stage, "")
    for key in row.get("intervals", {}):
        name = key.removeprefix(before)
        limits = evaluation.value(row, name)
        if limits is not None:
            own = name.removeprefix(prefix)
            yield Fact(f"{prefix}{own}", limits, f"{row['items']} {where}")


def _shifts(run: Run) -> Iterator[Fact]:
    """Yields how far importance moved on each probe: the Jensen-Shannon distance of the layer shares."""
    for moved in movements(run):
        if moved.shift is None:
            continue
        tested = (moved.test.p, f"paired {moved.test}") if moved.test else (None, "")
        where = f"{moved.last['examples']} examples of {moved.probe}"
        yield shift_fact(moved.probe, moved.shift["metrics"]["js"], moved.estimator, where, tested)


def shift_fact(name: str, js: Mapping[str, Any], estimator: str, where: str, tested: tuple[float | None, str]) -> Fact:
    """Returns how far importance moved, without what the noise of few examples adds: its interval is of that, too.

    Args:
        name: Of the probe.
        js: ``value``, ``corrected``, ``low`` and ``high`` of the distance (``importance.shift.Estimate``).
        estimator: What was measured.
        where: On what.
        tested: p of the paired test and the test in words.
    """
    low, high = js.get("low"), js.get("high")
    value = js["value"] if (corrected := js.get("corrected")) is None else corrected
    limits = (float(value), -math.inf if low is None else float(low), math.inf if high is None else float(high))
    freed = "" if corrected is None else f" without noise ({js['value']:.3g} with it)"
    return Fact(f"shift/{name}", limits, f"JS distance of {estimator} over layers{freed}, {where}", *tested)
