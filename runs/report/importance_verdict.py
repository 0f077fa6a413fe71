"""What a run's importance measurements say, and whether anybody tested them."""

from __future__ import annotations

import math
from functools import partial

from ..measurements import Measurement, ShiftRecord, Verification, Verified, with_limits
from ..run import Run
from .causal import ends
from .causal_verdict import causal_findings
from .finding import Finding
from .paired_p import PairedP, paired_p

UNVERIFIED = (
    "unverified: whether these scores foretell what happens when weights are shrunk was not tested on this run; "
    "`textkeep importance verify RUN --data DATA` does it."
)


def importance_findings(run: Run) -> list[Finding]:
    """Says how importance moved, one line a probe; then whether the scores were put to the test, and how they did."""
    findings = [
        *_shifts(run),
        *causal_findings(run),
        *(_verification(record, run) for record in run.importance.verifications),
    ]
    if findings and not run.importance.verifications:
        findings.append(Finding("Importance check", "open", UNVERIFIED))
    return findings


def _verification(record: Verification, run: Run) -> Finding:
    """Gives the score that the run follows, at the largest amount of shrinking, beside magnitude and random scores."""
    shrink = max(result["shrink"] for result in record["results"])
    results = {result["score"]: result for result in record["results"] if result["shrink"] == shrink}
    followed = next((e for _, e in run.importance.pairs if e in results), next(iter(results)))
    found, chance = results[followed], results["random"]
    better = found["low"] > chance["high"]
    judged = "better than random scores" if better else "not clearly better than random scores"
    step = f", step {record['step']}" if record.get("step") is not None else ""
    topic = f"Importance check ({record['granularity']}{step})"
    return Finding(
        topic,
        "good" if better else "open",
        f"the rank correlation of {followed} with the real change of the loss, when {len(record['groups'])} groups are "
        f"{'removed' if shrink == 1 else f'shrunk by {shrink:g}'}, is {_interval(found)}: {judged} "
        f"({_interval(chance)}); magnitude {_interval(results['magnitude'])}; in the lower half by {followed} the "
        f"largest change is {found['worst_missed']:.2g} of {found['worst']:.2g} nats.",
    )


def _interval(result: Verified) -> str:
    return f"{result['spearman']:.2f} [{result['low']:.2f}, {result['high']:.2f}]"


def _shifts(run: Run) -> list[Finding]:
    """Writes one line a probe, by its first estimator."""
    findings = []
    for probe in dict.fromkeys(line["probe"] for line in run.importance.measurements):
        estimator = next(e for p, e in run.importance.pairs if p == probe)
        line = run.importance.of(probe, estimator)[-1]
        topic = f"Importance ({probe})"
        shift = line.get("shift")
        if shift is None or line["step"] == run.importance.of(probe, estimator)[0]["step"]:
            findings.append(Finding(topic, "plain", "was measured once: no shift to speak of yet."))
            continue
        steps = run.importance.of(probe, estimator)[0]["step"], line["step"]
        test = paired_p(shift, estimator, partial(ends, run, probe, steps))
        findings.append(Finding(topic, *_shift_words(line, shift, estimator, test)))
    return findings


def _shift_words(line: Measurement, shift: ShiftRecord, estimator: str, test: PairedP | None) -> tuple[str, str]:
    js, scale = shift["metrics"]["js"], shift["metrics"]["js"]["null_p95"]
    mark = "plain" if test is not None and test.shifted else "open"
    judged = ", without a paired test"
    if test is not None:
        judged = f", on these examples {'' if test.shifted else 'not certainly '}a shift (paired permutation, {test})"
    if scale is not None:
        judged += f"; another probe of half the size would differ by up to {scale:.2g}"
    part = f", {line['shares_of']}" if line.get("shares_of") else ""  # earlier versions did not say
    moved = (
        "stays in" if shift["peak_before"] == shift["peak_after"] else f"moves from {_layer(shift['peak_before'])} to"
    )
    return mark, (
        f"layer shares ({estimator}{part}) shifted by a Jensen-Shannon distance of {with_limits(js)}{judged}; "
        f"the peak {moved} {_layer(shift['peak_after'])}; the total changed by a factor of "
        f"{shift['total_after'] / shift['total_before'] if shift['total_before'] else math.nan:.2g}; "
        f"the loss on this probe went from {shift['loss_before']:.3g} to {shift['loss_after']:.3g} nats per token."
    )


def _layer(label: str) -> str:
    return label.replace("layer_", "layer ")
