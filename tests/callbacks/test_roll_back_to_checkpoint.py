"""A run over its budget ends at its newest checkpoint inside; from the command line, whose files are read safely."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.overlays import tiny_overlay, words
from tests.support.speech_run import make_data, make_model, make_trainer
from textkeep.callbacks import RollBackToCheckpoint, RunCheckpoint, TextBudget
from textkeep.cli.main import main
from textkeep.foundation.errors import UserError

STEPS = 5


@pytest.fixture
def text(tmp_path: Path) -> str:
    path = tmp_path / "prose.txt"
    path.write_text("\n\n".join(f"Passage {i} tells {'more ' * (i % 3 + 1)}of plain things." for i in range(6)))
    return str(path)


def fit(settings: dict[str, Any], run: Path, budget: dict[str, Any], every: int = 1) -> list[dict[str, str]]:
    """Trains; gives the rows of the log that have a reading, in order."""
    saving = {"class_path": "RunCheckpoint", "init_args": {"every_n_train_steps": every, "save_top_k": -1}}
    tiny = tiny_overlay(settings, run.parent, STEPS, [{"class_path": "TextBudget", "init_args": budget}, saving])
    fast = ("--model.optimizer.init_args.lr", "0.2", "--model.lr_schedule", "constant")
    assert main(words(None, tiny, run, *fast)) == 0
    with (run / "metrics.csv").open() as file:
        return [row for row in csv.DictReader(file) if row.get("budget/prose/increase")]


def weights(run: Path, step: int) -> dict[str, torch.Tensor]:
    return torch.load(run / f"checkpoints/step={step:06d}.ckpt", weights_only=True)["state_dict"]


def test_it_ends_with_the_weights_of_the_newest_step_inside(
    tmp_path: Path, tiny_settings: dict[str, Any], text: str
) -> None:
    free = fit(tiny_settings, tmp_path / "free", {"max_increase": 1.0, "text": text, "every_n_steps": 1, "actions": []})
    rises = [float(row["budget/prose/increase"]) for row in free]
    assert len(rises) == STEPS + 1
    newest = max(step for step in range(1, STEPS) if rises[step] < rises[STEPS])
    allowed = (rises[newest] + rises[STEPS]) / 2
    budget = {"max_increase": allowed, "text": text, "every_n_steps": STEPS}
    run = tmp_path / "run"
    rows = fit(tiny_settings, run, {**budget, "actions": [{"class_path": "RollBackToCheckpoint"}]})
    assert float(rows[-1]["budget/prose/back_to_step"]) == newest
    assert float(rows[-1]["budget/prose/increase"]) == pytest.approx(rises[newest], rel=1e-6)
    wanted, ended = weights(tmp_path / "free", newest), weights(run, STEPS)
    assert all(torch.equal(tensor, ended[name]) for name, tensor in wanted.items())


def test_where_no_checkpoint_is_inside_the_next_action_gets_the_last_weights(
    tmp_path: Path, tiny_settings: dict[str, Any], text: str
) -> None:
    actions = [{"class_path": "RollBackToCheckpoint"}, {"class_path": "RollBack", "init_args": {"rounds": 3}}]
    budget = {"max_increase": 1e-7, "text": text, "every_n_steps": STEPS, "actions": actions}
    rows = fit(tiny_settings, tmp_path / "run", budget, every=4)
    assert [float(row["budget/prose/increase"]) <= 1e-7 for row in rows] == [True, False, True]
    assert not any(row.get("budget/prose/back_to_step") for row in rows)
    assert rows[-1]["budget/prose/alpha"]


def test_a_run_that_keeps_one_checkpoint_is_refused(
    tmp_path: Path, tiny_llm_dir: Path, tiny_whisper_dir: Path, text: str
) -> None:
    callbacks = [TextBudget(0.1, text, actions=[RollBackToCheckpoint()]), RunCheckpoint()]
    trainer = make_trainer(tmp_path, callbacks, max_steps=1, enable_checkpointing=True)
    with pytest.raises(UserError, match="RollBackToCheckpoint needs several checkpoints"):
        trainer.fit(make_model(tiny_llm_dir, tiny_whisper_dir), make_data(tmp_path / "data"))
