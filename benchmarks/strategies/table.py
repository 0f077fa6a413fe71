"""The results as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from textkeep.foundation.run_names import FORGETTING, MISALIGNMENT

from .arms import FULL, find_arms
from .results import Results

LEARNED = (
    ("speech loss", "speech_answer_loss", 2),
    ("speech accuracy, %", "speech_accuracy", 0),
    ("text loss, in-domain", "text_answer_loss", 2),
    ("text accuracy, %", "text_accuracy", 0),
    ("text loss, held out", "heldout_text/loss", 2),
    ("its change", "heldout_text/loss_change", 2),
    ("F", FORGETTING, 3),
    ("M", MISALIGNMENT, 2),
)


def tables(out: Path) -> str:
    """Two tables: what was learned and kept, and what moved and what it cost.

    Costs are those of ``--costs`` if available, otherwise those of the arms' own clocks.
    """
    place = {arm.name: number for number, arm in enumerate(find_arms())}
    lines = sorted(Results(out / "results.jsonl").read(), key=lambda line: place.get(line["arm"], len(place)))
    done = [line for line in lines if "error" not in line]
    costs = {line["arm"]: line for line in Results(out / "costs.jsonl").read() if "error" not in line}
    heads = ["arm", *(head for head, _, _ in LEARNED)]
    rows = [_start(done[0])] if done else []
    rows += [[line["arm"], *(_value(line, key, digits) for _, key, digits in LEARNED)] for line in done]
    moved = [_moved(line, costs.get(line["arm"]), done[0]) for line in done]
    failed = [f"{line['arm']}: {line['error']}" for line in lines if "error" in line]
    cost_heads = ["arm", "shift, held out (js)", "log ratio of totals", "shift, in-domain (js)", "step time", "memory"]
    parts = [_markdown(heads, rows), _markdown([*cost_heads, "trained parameters, M (of the LLM)"], moved)]
    return "\n\n".join([*parts, *(["Failed:\n\n" + "\n".join(f"- {text}" for text in failed)] if failed else [])])


def _start(line: dict[str, Any]) -> list[str]:
    values = {**line["start"], "heldout_text/loss": line["heldout_text/start_loss"]}
    return ["untouched LLM", *(_value(values, key, digits) for _, key, digits in LEARNED)]


def _value(line: dict[str, Any], key: str, digits: int) -> str:
    if key not in line:
        return "-"
    scale = 100 if key.endswith("accuracy") else 1
    value, low, high = (scale * number for number in line[key])
    sign = "+" if key.endswith("change") else ""
    return f"{value:{sign}.{digits}f} [{low:{sign}.{digits}f}, {high:{sign}.{digits}f}]"


def _moved(line: dict[str, Any], cost: dict[str, Any] | None, full: dict[str, Any]) -> list[str]:
    ratios = [line[key] / full[key] for key in ("cpu_per_step", "peak_mib")]
    if cost is not None and line["arm"] != FULL:  # measured in turns with full tuning: preferred
        ratios = [cost["time_ratio"], cost["memory_ratio"]]
    trained = f"{line['trainable'] / 1e6:.1f} ({line['trainable_llm'] / 1e6:.1f})"
    shifts = [_shift(line, "heldout_text/js"), _shift(line, "heldout_text/log_total_ratio", "+")]
    return [line["arm"], *shifts, _shift(line, "indomain_text/js"), *(f"{r:.2f}" for r in ratios), trained]


def _shift(line: dict[str, Any], key: str, sign: str = "") -> str:
    if key not in line:
        return "-"
    value, low, high = line[key]
    return f"{value:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"


def _markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
