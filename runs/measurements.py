"""Types of the contents of a run's importance files, as JSON."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict


class Estimated(TypedDict):
    """A figure of a shift with its uncertainty; see :class:`textkeep.importance.Estimate`."""

    value: float
    low: float | None
    high: float | None
    null: float | None
    null_p95: float | None
    p: NotRequired[float | None]
    expected: NotRequired[float | None]
    corrected: NotRequired[float | None]


class ShiftRecord(TypedDict):
    """A shift against the first measurement; see :class:`textkeep.importance.Shift`."""

    metrics: dict[str, Estimated]
    layers: dict[str, Estimated]
    peak_before: str
    peak_after: str
    total_before: float
    total_after: float
    loss_before: float
    loss_after: float
    p_floor: NotRequired[float | None]
    untested: NotRequired[str]


class RankedRecord(TypedDict):
    """A rank correlation with its interval; see :class:`textkeep.importance.agreement.Ranked`."""

    value: float
    low: float | None
    high: float | None


class AgreementRecord(TypedDict):
    """An estimator beside an ablation; see :class:`textkeep.importance.agreement.Agreement`."""

    estimator: str
    ablation: str
    now: RankedRecord
    moved: RankedRecord | None


class Costless(TypedDict):
    """Groups of an ablation whose removal does not raise the loss: how many, of how many, their part of all effects."""

    groups: int
    of: int
    part: float


class Measurement(TypedDict):
    """A line of the summary: one estimator on one probe at one step.

    ``shares`` (of the layers) and ``kinds`` (of matrices) are parts of 1; the loss is in nats per token. ``plain``
    marks the loss of every token of a text rather than of answers. ``loss_change`` is against the first measurement, a
    mean over the same examples with Student's 95 % limits.
    """

    step: int
    probe: str
    estimator: str
    loss: float
    total: float
    shares: dict[str, float]
    shift: ShiftRecord | None
    kinds: NotRequired[dict[str, float]]
    shares_of: NotRequired[str]
    coverage: NotRequired[float]
    examples: NotRequired[int]
    seconds: NotRequired[float]
    causal: NotRequired[AgreementRecord]
    costless: NotRequired[Costless]
    plain: NotRequired[bool]
    loss_change: NotRequired[list[float]]


class Verified(TypedDict):
    """What ``textkeep importance verify`` found for one score at one amount of shrinking."""

    score: str
    shrink: float
    spearman: float
    low: float
    high: float
    worst: float
    worst_missed: float


class Verification(TypedDict):
    """A record of ``textkeep importance verify``."""

    step: int | None
    granularity: str
    groups: list[str]
    results: list[Verified]


class Removed(TypedDict):
    """The loss on one data set with one set of weights switched off."""

    removed: str
    data: str
    perplexity: float
    increase: float
    low: float
    high: float


class Removal(TypedDict):
    """A record of ``textkeep importance removal``."""

    estimator: str
    fraction: float
    scope: str
    rows: list[Removed]


def with_limits(js: Estimated) -> str:
    """Formats a JS distance with the part from noise alone, and the remainder with its 90 % interval.

    Earlier versions had neither: their interval was that of the distance itself.
    """
    limits = f" [{js['low']:.2g}, {js['high']:.2g}]" if js["low"] is not None else ""
    expected, corrected = js.get("expected"), js.get("corrected")
    if expected is None or corrected is None:
        return f"{js['value']:.2g}{limits}"
    return f"{js['value']:.2g} (noise alone {expected:.2g}; without it {corrected:.2g}{limits})"


def check_measurement(line: dict[str, Any]) -> object:
    """Accesses what every reader of a summary line relies on; raises if it is missing."""
    if not isinstance(line["probe"], str) or not isinstance(line["estimator"], str):
        raise TypeError("probe and estimator are names")
    if not isinstance(line["step"], int):
        raise TypeError("step is a whole number")
    return float(line["total"]), dict(line["shares"])


def check_verification(record: dict[str, Any]) -> None:
    """Raises if a record of ``textkeep importance verify`` lacks what a page shows of it."""
    scores = {result["score"] for result in record["results"]}
    if not {"random", "magnitude"} <= scores or not record["groups"] or not record["granularity"]:
        raise ValueError("it is not a record of `textkeep importance verify`")


def check_removal(record: dict[str, Any]) -> object:
    """Accesses what a page shows of a removal test; raises if it is missing."""
    rows = [(row["removed"], row["data"], float(row["increase"])) for row in record["rows"]]
    limits = [(row["low"], row["high"], row["perplexity"]) for row in record["rows"]]
    return rows, limits, float(record["fraction"]), record["estimator"], record["scope"]
