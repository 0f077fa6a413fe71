"""In words: whether the real effects shifted as the gradient indicates."""

from __future__ import annotations

from ..run import Run
from .causal import Beside, beside_ablations, ranked, shifted
from .finding import Finding


def causal_findings(run: Run) -> list[Finding]:
    """Compares them once per probe, for its first estimator."""
    found: dict[str, Beside] = {}
    for beside in beside_ablations(run):
        found.setdefault(beside.probe, beside)
    return [_finding(beside) for beside in found.values()]


def _finding(beside: Beside) -> Finding:
    estimator, causal = beside.last["estimator"], beside.last["causal"]
    now, topic = causal["now"], f"Causal importance ({beside.probe})"
    agrees = now["low"] is not None and now["low"] > 0
    order = f"{estimator} ranks the layers like the effects of removing them, with a rank correlation of {ranked(now)}"
    doubt = "" if agrees else ", not demonstrably above 0"
    if not beside.moved:
        return Finding(topic, "plain" if agrees else "open", f"{order}{doubt}.")
    by_both = [test is not None and test.shifted for test in beside.tests]
    told = {
        (True, True): "both shifted",
        (True, False): "the gradient indicates a shift that removal does not establish",
        (False, True): "removal shows a shift that the gradient does not establish",
        (False, False): "neither demonstrably shifted",
    }[by_both[0], by_both[1]]
    words = (
        f"{told}: layer shares of the effects by {shifted(beside.ablation, beside.tests[1])}, of {estimator} by "
        f"{shifted(beside.last, beside.tests[0])} (JS distance); {order}{doubt}, and their changes agree by "
        f"{ranked(causal['moved'])}."
    )
    return Finding(topic, "plain" if agrees and by_both[0] == by_both[1] else "open", words)
