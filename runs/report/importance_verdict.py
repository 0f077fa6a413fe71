"""Whether a run's importance scores were tested, and with what result."""

from __future__ import annotations

from ..measurements import Verification, Verified
from ..run import Run
from .causal_verdict import causal_findings
from .finding import Finding

UNVERIFIED = (
    "unverified: nobody has tested whether this run's scores predict what happens when weights are shrunk; "
    "`textkeep importance verify RUN --data DATA` tests it."
)


def importance_findings(run: Run) -> list[Finding]:
    """Compares how causal and gradient scores moved, then says whether the scores were tested and how they did."""
    if run.importance.measurements and not run.importance.verifications:
        return [*causal_findings(run), Finding("Importance check", "open", UNVERIFIED)]
    return [*causal_findings(run), *(_verification(record, run) for record in run.importance.verifications)]


def _verification(record: Verification, run: Run) -> Finding:
    """Compares the score that the run tracks, at the largest shrinking, with magnitude and random scores."""
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
