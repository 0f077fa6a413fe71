"""How importance shifted in each arm, compared with chance, with intervals over seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ....evaluation import mean_interval
from ....foundation.run_names import layer_number
from ...measurements import Estimated, ShiftRecord
from ..estimates import interval
from ..paired_p import PairedP
from ..study_data import StudyData
from .table import DASH, Table

_NOTE = (
    "Last measurement against the first, mean over seeds; in brackets Student's 95 % interval over them. JS "
    "distance: of the layer shares, in [0, 1]; noise alone: what it would be without a shift. "
    "Shifted: runs whose own examples moved, by a paired permutation (before and after exchanged within examples) "
    "at 5 %, and the largest p-value. Half size: not a null but a scale, which 95 % of random halves of the "
    "probe stay below without any training. Beyond it: runs whose 90 % interval over the examples lies above it. "
    "Peak: the layer with the largest total, and its move. Log total ratio: below 0 importance is suppressed. The "
    "loss on the probe is shown because importance on fitted items falls by itself."
)
_HEAD = ["arm", "probe", "estimator", "JS distance", "noise alone", "shifted", "half size (95 %)", "beyond it"]
_MORE = ["peak layer", "log total ratio", "loss, change"]
JS_BOUNDS = (0.0, 1.0)


def value_of(metric: str) -> Callable[[ShiftRecord], float]:
    """Reads a metric from a shift."""
    return lambda shift: float(shift["metrics"][metric]["value"])


def loss_change(shift: ShiftRecord) -> float:
    """Returns the change of the loss on the probe, nats."""
    return float(shift["loss_after"] - shift["loss_before"])


def shift_table(data: StudyData) -> Table | None:
    """Builds one row per arm, probe and estimator; None if importance was not measured twice."""
    rows = []
    for arm in data.trained:
        for pair in data.pairs:
            if shifts := arm.shifts(pair):
                tests = [run.paired_p(pair) for run in arm.runs.values() if run.shift(pair) is not None]
                rows.append([arm.name, *pair, *_cells(shifts, tests)])
    return Table("Shift of importance", [*_HEAD, *_MORE], rows, _NOTE) if rows else None


def _cells(shifts: Sequence[ShiftRecord], tests: Sequence[PairedP | None]) -> list[str]:
    distances = [shift["metrics"]["js"] for shift in shifts]
    nulls = [distance["null_p95"] for distance in distances if distance["null_p95"] is not None]
    beyond = sum(d["null_p95"] is not None and d["low"] is not None and d["low"] > d["null_p95"] for d in distances)
    return [
        interval(mean_interval([value_of("js")(shift) for shift in shifts], bounds=JS_BOUNDS)),
        _noise(distances),
        _shifted([test for test in tests if test is not None]),
        f"{sum(nulls) / len(nulls):.2g}" if nulls else DASH,
        f"{beyond} of {len(distances)}",
        _peak(shifts),
        _mean(shifts, value_of("log_total_ratio"), signed=True),
        _mean(shifts, loss_change, signed=True),
    ]


def _noise(distances: Sequence[Estimated]) -> str:
    """Returns the mean of the part from noise alone; earlier versions did not record it."""
    known = [value for distance in distances if (value := distance.get("expected")) is not None]
    return f"{sum(known) / len(known):.2g}" if known else DASH


def _shifted(tests: Sequence[PairedP]) -> str:
    """Formats ``3 of 3, p <= 0.0002``: runs that moved, and the largest p-value among all."""
    if not tests:
        return "not tested"
    return f"{sum(test.shifted for test in tests)} of {len(tests)}, {max(tests)}"


def _mean(shifts: Sequence[ShiftRecord], read: Callable[[ShiftRecord], float], signed: bool = False) -> str:
    return interval(mean_interval([read(shift) for shift in shifts]), signed=signed)


def _peak(shifts: Sequence[ShiftRecord]) -> str:
    """Formats ``26 to 24, 25; -1.5``: before, after in each run, mean move."""
    after = list(dict.fromkeys(_number(shift["peak_after"]) for shift in shifts))
    moves = [value_of("peak_move")(shift) for shift in shifts]
    return f"{_number(shifts[0]['peak_before'])} to {', '.join(after)}; {sum(moves) / len(moves):+.2g}"


def _number(layer: str) -> str:
    return str(layer_number(layer))
