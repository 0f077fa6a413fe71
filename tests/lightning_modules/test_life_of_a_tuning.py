"""The order of hooks that the docstring of Tuning tells, held against a run, its checkpoint and a resume."""

from __future__ import annotations

import re
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from tests.support.speech_run import make_data, make_model, make_trainer
from textkeep.callbacks import RunCheckpoint
from textkeep.lightning_modules import FullFineTuning, Tuning

PARTS = re.split(r"^    \d\. ", Tuning.__doc__ or "", flags=re.MULTILINE)[1:]
TOLD = [re.findall(r":meth:`(\w+)`", part) for part in PARTS]
"""The hooks that each numbered line of the docstring names."""


def test_the_docstring_names_every_hook_in_the_order_of_the_file() -> None:
    defined = [name for name, value in vars(Tuning).items() if callable(value) and not name.startswith("_")]
    assert [name for part in TOLD for name in part] == defined


def fit(folder: Path, llm: Path, whisper: Path, steps: int, checkpoint: Path | None = None) -> None:
    model = make_model(llm, whisper, tuning=FullFineTuning(), gradient_checkpointing=True)
    options: dict[str, Any] = {"max_epochs": -1, "max_steps": steps, "enable_checkpointing": True}
    trainer = make_trainer(folder, [RunCheckpoint(every_n_train_steps=steps)], limit_val_batches=0, **options)
    trainer.fit(model, make_data(folder / "data"), ckpt_path=checkpoint, weights_only=False)


def test_a_run_calls_them_in_that_order(
    tmp_path: Path, tiny_llm_dir: Path, tiny_whisper_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def recorded(name: str) -> Any:
        original = getattr(FullFineTuning, name)

        def hook(self: FullFineTuning, *args: Any, **options: Any) -> Any:
            calls.append(name)
            return original(self, *args, **options)

        return hook

    asked_anywhere = {"multipliers", "importance_users"}
    for name in {hook for part in TOLD for hook in part} - asked_anywhere:
        monkeypatch.setattr(FullFineTuning, name, recorded(name))

    def parts() -> list[int]:
        """The numbers of the docstring's lines, as the run went through them."""
        line_of = {name: number for number, part in enumerate(TOLD, start=1) for name in part}
        found = [number for number, _ in groupby(line_of[call] for call in calls)]
        calls.clear()
        return found

    fit(tmp_path / "first", tiny_llm_dir, tiny_whisper_dir, steps=2)
    assert calls[:5] == ["loading_options", "prepare", "recompute_options", "loading_options", "parameter_groups"]
    assert calls[5:] == [
        "attach_to_optimizer",
        "initialize",
        *["reading", "edit_gradients"] * 2,
        "frozen_to_save",
        "extra_state",
    ]
    assert parts() == [1, 3, 4, 5, 7]
    checkpoint = next((tmp_path / "first/checkpoints").glob("*.ckpt"))
    fit(tmp_path / "second", tiny_llm_dir, tiny_whisper_dir, steps=3, checkpoint=checkpoint)
    order = [name for name, _ in groupby(calls)]
    assert order[order.index("match_checkpoint") :][:3] == ["match_checkpoint", "frozen_to_save", "load_extra_state"]
    assert "initialize" not in calls
