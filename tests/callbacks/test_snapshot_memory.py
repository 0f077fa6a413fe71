"""The untouched LLM's importance from disk: the same to the bit, or measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.speech_run import make_data, make_model, make_trainer
from textkeep.callbacks import ImportanceTracker
from textkeep.callbacks.importance import probing
from textkeep.datamodules import Probe
from textkeep.importance.estimators import ESTIMATORS, register
from textkeep.lightning_modules import LoRA, SpeechTurns

pytestmark = pytest.mark.filterwarnings("ignore")

PROBES = ("speech", "written")


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Notes each measurement: probe and step."""
    noted: list[tuple[str, int]] = []
    probe = probing.probe

    def noting(*args: Any, **options: Any) -> Any:
        noted.append((options["name"], options["step"]))
        return probe(*args, **options)

    monkeypatch.setattr(probing, "probe", noting)
    return noted


@pytest.fixture
def fit(tmp_path: Path, tiny_llm_dir: Path, tiny_whisper_dir: Path) -> Callable[..., Path]:
    source = make_data(tmp_path / "data").splits.sources["train"]
    (path,) = source if isinstance(source, list) else [source]
    probes = {"speech": Probe(path, "speech", 3), "written": Probe(path, "text", 3)}
    data = make_data(tmp_path / "data", probes=probes)

    def run(name: str, cache: str | None, model: dict[str, Any] | None = None, **options: Any) -> Path:
        tracker = ImportanceTracker(untouched_cache=cache, **{"estimators": ("taylor", "ablation"), **options})
        trainer = make_trainer(tmp_path / name, [tracker], max_steps=1, limit_val_batches=0)
        trainer.fit(make_model(tiny_llm_dir, tiny_whisper_dir, **(model or {})), data)
        return tmp_path / name / "importance"

    return run


def written(importance: Path, step: int = 0) -> dict[str, Any]:
    """All that two runs have alike in their snapshots: everything but how long it took."""
    found: dict[str, Any] = {}
    for folder in (importance / name / f"step={step:06d}" for name in PROBES):
        meta = json.loads((folder / "meta.json").read_text())
        del meta["seconds"]
        found[folder.parent.name] = ((folder / "stats.safetensors").read_bytes(), meta)
    return found


def summary(importance: Path) -> list[dict[str, Any]]:
    lines = map(json.loads, (importance / "summary.jsonl").read_text().splitlines())
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


UNTOUCHED = [("speech", 0), ("written", 0)]
END = [("speech", 1), ("written", 1)]


def test_another_run_of_the_same_llm_reads_what_it_would_measure(
    fit: Callable[..., Path], tmp_path: Path, measured: list[tuple[str, int]]
) -> None:
    cache = str(tmp_path / "untouched")

    def again(name: str, folder: str | None, expected: list[tuple[str, int]], **model: Any) -> Path:
        measured.clear()
        importance = fit(name, folder, model)
        assert sorted(measured, key=lambda one: one[1]) == expected, name
        return importance

    without = again("without", None, UNTOUCHED + END)
    first = again("first", cache, UNTOUCHED + END)
    second = again("second", cache, END)
    gated = again("gated", cache, END, tuning=LoRA(r=2, gate=SpeechTurns()))
    assert written(without) == written(first) == written(second) == written(gated)
    assert written(without, 1) == written(second, 1) != written(gated, 1)
    assert summary(without) == summary(second)


def damage(cache: Path) -> None:
    files = cache.rglob("stats.safetensors")
    (file,) = [file for file in files if json.loads((file.parent / "meta.json").read_text())["name"] == "speech"]
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def test_what_is_damaged_is_measured(fit: Callable[..., Path], tmp_path: Path, measured: list[tuple[str, int]]) -> None:
    first = fit("first", str(tmp_path / "untouched"))
    damage(tmp_path / "untouched")
    measured.clear()
    assert written(fit("second", str(tmp_path / "untouched"))) == written(first)
    assert measured == [UNTOUCHED[0], *END]


register("mine", replace(ESTIMATORS["taylor"], formula="mine"))


def test_what_is_asked_otherwise_is_measured(
    fit: Callable[..., Path], tmp_path: Path, measured: list[tuple[str, int]]
) -> None:
    cache = str(tmp_path / "untouched")
    fit("first", cache)
    for number, other in enumerate(({"vectors": False}, {"estimators": ("taylor",)}, {"estimators": ("mine",)})):
        for _ in range(2):  # an estimator of one's own may have changed meanwhile
            measured.clear()
            fit(f"other{number}", cache, **other)
        assert (sorted(measured) == sorted(UNTOUCHED + END)) == ("mine" in other.get("estimators", ()))
    measured.clear()
    fit("another", cache, {"max_new_tokens": 5})
    assert sorted(measured) == sorted(UNTOUCHED + END)
