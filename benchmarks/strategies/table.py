"""The results as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .arms import FULL
from .results import Results

LEARNED = (
    ("speech loss", "speech_answer_loss", 2),
    ("speech accuracy, %", "speech_accuracy", 0),
    ("text loss, in-domain", "text_answer_loss", 2),
    ("text accuracy, %", "text_accuracy", 0),
    ("text loss, held out", "heldout_text/loss", 2),
    ("its change", "heldout_text/loss_change", 2),
    ("F", "forgetting/kl", 3),
    ("M", "misalignment/kl", 2),
)


def tables(out: Path) -> str:
    """Two tables: what was learned and kept, and what moved and what it cost."""
    lines = Results(out / "results.jsonl").read()
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
    own = line["arm"] == FULL
    time = "1" if own else f"{cost['time_ratio']:.2f}" if cost else "-"
    memory = "1" if own else f"{cost['memory_ratio']:.2f}" if cost else "-"
    trained = f"{line['trainable'] / 1e6:.1f} ({line['trainable_llm'] / 1e6:.1f})"
    shifts = [_shift(line, "heldout_text/js"), _shift(line, "heldout_text/log_total_ratio", "+")]
    return [line["arm"], *shifts, _shift(line, "indomain_text/js"), time, memory, trained]


def _shift(line: dict[str, Any], key: str, sign: str = "") -> str:
    value, low, high = line[key]
    return f"{value:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"


def _markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
