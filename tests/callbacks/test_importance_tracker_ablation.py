"""Causal importance inside a run: beside Taylor's, without a trace, and in pieces between which a run can stop."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from textkeep.callbacks.importance import probing
from textkeep.callbacks.importance.importance_tracker import ImportanceTracker
from textkeep.importance import Snapshot, compare
from textkeep.importance.agreement import agreement

from .test_importance_tracker import run

BOTH = ("taylor", "ablation")


def lines_of(folder: Path) -> list[dict]:
    return [json.loads(text) for text in (folder / "importance/summary.jsonl").read_text().splitlines()]


def test_training_is_bit_identical_and_the_summary_has_both(tmp_path: Path) -> None:
    tracker = ImportanceTracker(("speech",), BOTH, every_n_steps=1, replicates=20, ablate="head", ablate_with="mean")
    _, model = run(tmp_path / "with", tracker, steps=3)
    _, plain = run(tmp_path / "without", None, steps=3)
    for p, q in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.equal(p, q)
    last = {line["estimator"]: line for line in lines_of(tmp_path / "with") if line["step"] == 3}
    first, end = (Snapshot.load(tmp_path / "with/importance/speech" / f"step={step:06d}") for step in (0, 3))
    assert last["taylor"]["causal"] == agreement(end, "taylor", first, replicates=20).as_dict()
    assert last["taylor"]["causal"]["moved"]["low"] is not None
    assert last["ablation"]["shift"] == compare(first, end, "ablation", replicates=20).as_dict()
    assert last["ablation"]["costless"]["of"] == 8
    assert last["ablation"]["shares"] == pytest.approx(end.shares("ablation"))
    assert "importance/speech/taylor/causal_spearman" in (tmp_path / "with/metrics.csv").read_text()


def test_a_resumed_run_measures_the_same(tmp_path: Path) -> None:
    args = {"dropout": 0.0, "every_n_train_steps": 2}
    run(tmp_path / "whole", ImportanceTracker(("speech",), BOTH, replicates=5), steps=6, **args)
    run(tmp_path / "parted", ImportanceTracker(("speech",), BOTH, replicates=5), steps=4, **args)
    checkpoint = str(tmp_path / "parted/checkpoints/step=4.ckpt")
    run(tmp_path / "parted", ImportanceTracker(("speech",), BOTH, replicates=5), steps=6, ckpt=checkpoint, **args)
    whole, parted = (
        Snapshot.load(tmp_path / folder / "importance/speech/step=000006") for folder in ("whole", "parted")
    )
    np.testing.assert_array_equal(whole.examples["ablation"], parted.examples["ablation"])
    ends = [lines_of(tmp_path / folder)[-1] for folder in ("whole", "parted")]
    assert ends[0]["shift"] == ends[1]["shift"]


def test_it_gives_way_before_every_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    monkeypatch.setattr(probing, "give_way", lambda trainer: looks.append(trainer.global_step))
    tracker = ImportanceTracker(("speech",), BOTH, at_checkpoints=False, at_end=False, replicates=0)
    run(tmp_path, tracker, steps=1)
    batches, layers = 2, 2
    assert len(looks) == batches + batches * layers + 1


@pytest.mark.parametrize(
    ("bad", "message"),
    [({"ablate": "neuron"}, "allowed: layer, matrix, head"), ({"ablate_with": "one"}, "allowed: zero, mean")],
)
def test_bad_settings_are_refused_at_construction(bad: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImportanceTracker(estimators=BOTH, **bad)
