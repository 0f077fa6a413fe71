"""The weight of a remedy under a budget: the formula, the closed loop, and that a continued run is the same run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.speech_run import make_data, make_model, make_trainer
from textkeep.callbacks import (
    ControlWeight,
    GracefulStop,
    RollBack,
    RunCheckpoint,
    SeededBatches,
    StepCompletion,
    TextBudget,
)
from textkeep.callbacks.budget.dual_ascent import DualAscent
from textkeep.callbacks.budget.passages import Passages
from textkeep.callbacks.stopping.give_way import give_way
from textkeep.callbacks.stopping.stop_signals import STOP_SIGNALS, Wish
from textkeep.foundation.errors import UserError
from textkeep.lightning_modules import L2SP, AnswerCrossEntropy


def test_the_multiplier_is_that_of_the_summed_form() -> None:
    """log lambda = log lambda_0 + gain (sum_i e_i + ahead (e_k - e_0)), where nothing is clipped."""
    budget, margin, gain, ahead = 0.04, 0.25, 0.7, 1.5
    increases = np.array([0.0, 0.005, 0.02, 0.035, 0.033, 0.028])
    errors = increases / budget - (1 - margin)
    ascent = DualAscent(gain, ahead, margin, low=1e-9, high=1e9)
    multiplier, before = 0.3, float(errors[0])
    for k, increase in enumerate(increases[1:], start=1):
        error = ascent.error(float(increase), budget)
        multiplier, before = ascent.step(multiplier, error, before), error
        wanted = math.log(0.3) + gain * (errors[1 : k + 1].sum() + ahead * (errors[k] - errors[0]))
        assert math.log(multiplier) == pytest.approx(wanted)


def test_it_is_bounded_in_a_step_and_in_all() -> None:
    ascent = DualAscent(gain=1.0, ahead=2.0, margin=0.2, low=0.01, high=5.0)
    assert ascent.step(0.1, 50.0, 0.0) == pytest.approx(0.1 * math.exp(2.0))
    assert ascent.step(1.0, -50.0, 0.0) == pytest.approx(math.exp(-2.0))
    assert ascent.step(4.0, 1.0, 1.0) == 5.0
    assert ascent.step(1.0, 0.1, 2.0) == 1.0  # falling fast, and still too much
    assert ascent.step(1.0, -0.1, 2.0) == pytest.approx(math.exp(-2.0))
    assert ascent.step(0.011, -0.8, -0.8) == 0.01


def closed_loop(budget: float | None, start: float) -> tuple[float, float]:
    """Gives (text, speech) at the end of 60 steps of Adam, a cosine schedule and a pull to the beginning.

    Two quadratic losses with different minima and noise in the gradient; measured each 5 steps.
    """
    noise = torch.Generator().manual_seed(0)
    curvature, goal = 0.1 * torch.rand(300, generator=noise) ** 3, 0.5 * torch.randn(300, generator=noise)
    x = torch.zeros(300, requires_grad=True)
    optimizer = torch.optim.Adam([x], lr=0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 60)
    ascent = DualAscent(1.0, 2.0, 0.2, 0.01 * start, 100 * start)

    def text() -> float:
        return float((curvature * x.detach() ** 2).sum() / 2)

    weight, before = start, -0.8
    for step in range(1, 61):
        x.grad = 0.02 * (x.detach() - goal + 0.5 * torch.randn(300, generator=noise)) + 0.05 * weight * x.detach()
        optimizer.step()
        schedule.step()
        if budget is not None and step % 5 == 0:
            error = ascent.error(text(), budget)
            weight, before = ascent.step(weight, error, before), error
    return text(), float(0.01 * ((x.detach() - goal) ** 2).sum())


@pytest.mark.parametrize(
    ("budget", "start"), [(0.03, 0.1), (0.03, 1.0), (0.06, 1.0), (0.1, 0.1), (0.1, 1.0), (0.2, 1.0)]
)
def test_the_closed_loop_ends_inside_its_budget_and_uses_it(budget: float, start: float) -> None:
    lost, free = closed_loop(None, 0.1)
    assert lost > 1.3 * budget
    text, speech = closed_loop(budget, start)
    assert 0.2 * budget < text <= 1.02 * budget
    assert free < speech < closed_loop(None, 30.0)[1]  # more speech than with a pull that keeps nearly all text


@pytest.fixture
def text(tmp_path: Path) -> str:
    path = tmp_path / "prose.txt"
    path.write_text("\n\n".join(f"Passage {i} tells {'more ' * (i % 3 + 1)}of plain things." for i in range(6)))
    return str(path)


def fit(
    folder: Path,
    models: tuple[Path, Path],
    text: str,
    steps: int,
    ckpt: Path | None = None,
    more: Sequence[Any] = (),
    allowed: float = 0.02,
    actions: Sequence[Any] = (),
) -> tuple[Any, TextBudget]:
    """Fits with a controlled pull and a checkpoint every step; gives the model and the budget."""
    control = ControlWeight("l2sp", gain=2.0)
    budget = TextBudget(allowed, text, every_n_steps=2, actions=[control, *actions])
    saving = [RunCheckpoint(every_n_train_steps=1, save_top_k=-1), StepCompletion(), SeededBatches()]
    adam = {"optimizer": lambda groups: torch.optim.AdamW(groups, lr=0.01)}
    model = make_model(*models, objectives=[AnswerCrossEntropy(), L2SP(0.5)], lr_schedule="constant", **adam)
    options = {"max_epochs": -1, "max_steps": steps, "limit_val_batches": 0, "enable_checkpointing": True}
    trainer = make_trainer(folder, [*more, budget, *saving], **options)
    path = None if ckpt is None else str(ckpt)
    trainer.fit(
        model, make_data(folder / "data"), ckpt_path=path, weights_only=False
    )  # the parts are among its parameters
    return model, budget


def test_a_continued_run_is_the_same_run(tmp_path: Path, tiny_llm_dir: Path, tiny_whisper_dir: Path, text: str) -> None:
    models = (tiny_llm_dir, tiny_whisper_dir)
    whole, budget = fit(tmp_path / "whole", models, text, 6)
    weights = [whole.objectives.weights["l2sp"]]
    for step in (2, 3):  # at a measurement, and between two
        checkpoint = tmp_path / f"whole/checkpoints/step={step:06d}.ckpt"
        again, continued = fit(tmp_path / f"again{step}", models, text, 6, checkpoint)
        assert continued.readings == budget.readings
        weights.append(again.objectives.weights["l2sp"])
        assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in whole.state_dict().items())
    assert len(set(weights)) == 1
    assert weights[0] != 0.5


def test_the_weight_acts_on_the_steps_that_follow(
    tmp_path: Path, tiny_llm_dir: Path, tiny_whisper_dir: Path, text: str
) -> None:
    model, budget = fit(tmp_path, (tiny_llm_dir, tiny_whisper_dir), text, 4)
    ascent = DualAscent(2.0, 2.0, 0.2, 0.005, 50.0)
    weight, before = 0.5, ascent.error(0.0, 0.02)
    for reading in budget.readings[1:]:
        error = ascent.error(reading.increase, 0.02)
        weight, before = ascent.step(weight, error, before), error
    assert model.objectives.weights == {"answer_ce": 1.0, "l2sp": pytest.approx(weight)}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gain": 0.0}, r"gain: 0\.0 \(allowed: positive\)"),
        ({"ahead": -1.0}, "ahead: -1"),
        ({"margin": 1.0}, "margin: 1"),
        ({"lowest": 0.0}, "lowest: 0"),
        ({"highest": 0.5}, "highest: 0.5"),
    ],
)
def test_bad_settings_are_refused_at_once(settings: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ControlWeight("l2sp", **settings)


@pytest.mark.parametrize("name", ["ewc", "answer_ce"])
def test_what_is_no_remedy_of_the_model_is_refused(
    tmp_path: Path, tiny_llm_dir: Path, tiny_whisper_dir: Path, text: str, name: str
) -> None:
    model = make_model(tiny_llm_dir, tiny_whisper_dir, objectives=[AnswerCrossEntropy(), L2SP(0.5)])
    trainer = make_trainer(tmp_path, [TextBudget(0.1, text, actions=[ControlWeight(name)])], max_steps=1)
    with pytest.raises(UserError, match=rf"no remedy '{name}' \(allowed: l2sp\)"):
        trainer.fit(model, make_data(tmp_path / "data"))


@pytest.mark.parametrize("cut", [2, 4], ids=["at a measurement", "while it turns back"])
def test_a_run_that_is_stopped_while_it_measures_goes_on_as_the_same_run(
    tmp_path: Path,
    tiny_llm_dir: Path,
    tiny_whisper_dir: Path,
    text: str,
    cut: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Readings: 1 of the untouched model, 2 at step 2, 3 at step 4, and from the 4th on the shares of RollBack."""
    models, measure, count = (tiny_llm_dir, tiny_whisper_dir), Passages.losses, 0

    def interrupted(self: Passages, trainer: Any, *args: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        if count == cut:
            STOP_SIGNALS.wish = Wish.INTERRUPT
            give_way(trainer)
        return measure(self, trainer, *args, **options)

    more = [GracefulStop()]
    whole, budget = fit(tmp_path / "whole", models, text, 4, more=more, allowed=1e-4, actions=[RollBack(rounds=3)])
    assert len(budget.readings) == 4
    monkeypatch.setattr(Passages, "losses", interrupted)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        fit(tmp_path / "cut", models, text, 4, more=more, allowed=1e-4, actions=[RollBack(rounds=3)])
    monkeypatch.undo()
    last = tmp_path / "cut/checkpoints/last.ckpt"
    again, continued = fit(tmp_path / "cut", models, text, 4, last, more, allowed=1e-4, actions=[RollBack(rounds=3)])
    assert continued.readings == budget.readings
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in whole.state_dict().items())
    saved = [
        torch.load(tmp_path / f"{run}/checkpoints/step=000004.ckpt", weights_only=False) for run in ("whole", "cut")
    ]
    first, second = (checkpoint["state_dict"] for checkpoint in saved)
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_the_share_of_replay_is_refused_with_what_is_allowed(
    tmp_path: Path, tiny_llm_dir: Path, tiny_whisper_dir: Path, text: str
) -> None:
    model = make_model(tiny_llm_dir, tiny_whisper_dir)
    trainer = make_trainer(tmp_path, [TextBudget(0.1, text, actions=[ControlWeight("replay")])], max_steps=1)
    with pytest.raises(UserError, match=r"share of data\.replay cannot follow a budget.*PlainTextRe"):
        trainer.fit(model, make_data(tmp_path / "data"))
