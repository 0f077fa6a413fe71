"""A run over its budget ends at the largest share of what it learned that is inside."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.support.speech_run import make_data, make_model, make_trainer
from textkeep.callbacks import RollBack, RunCheckpoint, RunCSVLogger, StopAtBudget, TextBudget
from textkeep.callbacks.budget.roll_back import largest_inside
from textkeep.foundation.errors import UserError
from textkeep.lightning_modules import DepthUpScaling, LoRA, PiSSA
from textkeep.lightning_modules.llm.lora_layers import lora_layers


@pytest.mark.parametrize(("power", "allowed"), [(1.0, 0.3), (2.0, 0.3), (3.0, 0.011), (0.5, 0.9)])
def test_bisection_finds_the_share(power: float, allowed: float) -> None:
    tried: list[float] = []

    def increase(alpha: float) -> float:
        tried.append(alpha)
        return alpha**power

    found = largest_inside(increase, allowed, rounds=12)
    assert found <= allowed ** (1 / power) <= found + 2**-12
    assert found in tried
    assert len(tried) == 12


def test_nothing_is_inside_but_the_untouched_model() -> None:
    assert largest_inside(lambda alpha: 1.0, 0.5, rounds=4) == 0.0


@pytest.fixture
def text(tmp_path: Path) -> str:
    path = tmp_path / "prose.txt"
    path.write_text("\n\n".join(f"Passage {i} tells {'more ' * (i % 3 + 1)}of plain things." for i in range(6)))
    return str(path)


def fit(folder: Path, model: Any, callbacks: list[Any], **options: Any) -> Any:
    settings = {"max_epochs": -1, "max_steps": 4, "limit_val_batches": 0, "logger": RunCSVLogger(str(folder))}
    trainer = make_trainer(folder, callbacks, **{**settings, **options})
    trainer.fit(model, make_data(folder / "data"))
    return trainer


def adam(groups: Any) -> Any:
    return torch.optim.AdamW(groups, lr=0.01)


def learned(models: tuple[Path, Path], folder: Path, **options: Any) -> Any:
    """A model after four steps without a budget."""
    model = make_model(*models, optimizer=adam, lr_schedule="constant", **options)
    fit(folder, model, [])
    return model


@pytest.fixture
def models(tiny_llm_dir: Path, tiny_whisper_dir: Path) -> tuple[Path, Path]:
    return tiny_llm_dir, tiny_whisper_dir


def test_the_run_ends_on_the_line_inside_its_budget(tmp_path: Path, models: Any, text: str) -> None:
    """Weights, checkpoint and log are those of one model on the line between the untouched one and the run's."""
    own = make_model(*models)
    base = dict(AutoModelForCausalLM.from_pretrained(models[0]).named_parameters())
    free = TextBudget(9.0, text, every_n_steps=6, actions=[])
    fit(tmp_path / "free", own, [free], max_steps=6)
    allowed = free.readings[-1].increase / 2
    assert allowed > 0.005
    model = make_model(*models)
    budget = TextBudget(allowed, text, every_n_steps=6, actions=[RollBack(rounds=3)])
    run = tmp_path / "run"
    fit(run, model, [budget, RunCheckpoint(every_n_train_steps=6)], enable_checkpointing=True, max_steps=6)
    with (run / "metrics.csv").open() as file:
        alpha = next(float(row["budget/prose/alpha"]) for row in csv.DictReader(file) if row.get("budget/prose/alpha"))
    assert 0 < alpha < 1
    assert (alpha * 8).is_integer()
    for name, parameter in model.llm.named_parameters():
        tuned = own.llm.get_parameter(name)
        assert torch.allclose(parameter, base[name] + alpha * (tuned - base[name]), atol=1e-6)
    assert all(torch.equal(a, b) for a, b in zip(own.adaptor.parameters(), model.adaptor.parameters(), strict=True))
    steps = [(reading.step, reading.over) for reading in budget.readings]
    assert steps == [(0, False), (6, True), (6, False)]
    saved = torch.load(run / "checkpoints/step=000006.ckpt", weights_only=False)["state_dict"]
    name = next(iter(base))
    assert torch.equal(saved[f"llm.{name}"], model.llm.get_parameter(name))
    assert len(list((run / "checkpoints").glob("step*"))) == 1


def test_a_run_inside_its_budget_is_left_alone(tmp_path: Path, models: Any, text: str) -> None:
    own = learned(models, tmp_path / "own")
    model = make_model(*models, optimizer=adam, lr_schedule="constant")
    fit(tmp_path / "run", model, [TextBudget(50.0, text, actions=[StopAtBudget(), RollBack()])])
    assert all(torch.equal(a, b) for a, b in zip(own.parameters(), model.parameters(), strict=True))


def test_with_a_stop_it_turns_back_where_the_budget_is_passed(tmp_path: Path, models: Any, text: str) -> None:
    budget = TextBudget(0.002, text, every_n_steps=1, actions=[StopAtBudget(ahead=False), RollBack(rounds=6)])
    run = tmp_path / "run"
    model = make_model(*models, optimizer=adam, lr_schedule="constant")
    trainer = fit(run, model, [budget, RunCheckpoint()], enable_checkpointing=True, max_steps=30)
    assert trainer.global_step < 30
    assert [reading.over for reading in budget.readings][-2:] == [True, False]
    assert budget.readings[-1].step == budget.readings[-2].step == trainer.global_step
    assert (run / f"checkpoints/step={trainer.global_step:06d}.ckpt").is_file()


def test_it_waits_for_the_least_number_of_steps(tmp_path: Path, models: Any, text: str) -> None:
    """A stop that ``min_steps`` puts off is no end: nothing is turned back on the way."""
    budget = TextBudget(0.002, text, every_n_steps=1, actions=[StopAtBudget(ahead=False), RollBack(rounds=6)])
    model = make_model(*models, optimizer=adam, lr_schedule="constant")
    trainer = fit(tmp_path, model, [budget], max_steps=30, min_steps=2)
    steps = [reading.step for reading in budget.readings]
    assert budget.readings[1].over
    assert steps[: trainer.global_step + 1] == [*range(trainer.global_step + 1)]


def test_where_something_else_ends_the_run_the_last_step_is_saved_anew(tmp_path: Path, models: Any, text: str) -> None:
    """The run ends with an epoch whose number of steps was not known: its checkpoint was written before."""
    from lightning.pytorch import Callback

    class Ends(Callback):
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            trainer.should_stop = True

    budget = TextBudget(0.002, text, every_n_steps=100, actions=[RollBack(rounds=6)])
    model = make_model(*models, optimizer=adam, lr_schedule="constant")
    callbacks = [Ends(), budget, RunCheckpoint(every_n_train_steps=1)]
    options = {"max_epochs": 9, "max_steps": -1, "limit_train_batches": 1}  # a step that costs text
    trainer = fit(tmp_path / "run", model, callbacks, enable_checkpointing=True, **options)
    assert trainer.current_epoch < 9
    assert [reading.over for reading in budget.readings][-2:] == [True, False]
    path = tmp_path / f"run/checkpoints/step={trainer.global_step:06d}.ckpt"
    saved = torch.load(path, weights_only=False)["state_dict"]
    assert all(torch.equal(saved[f"llm.{name}"], value) for name, value in model.llm.named_parameters())


@pytest.mark.parametrize("stops", [False, True], ids=["last step", "stopped"])
def test_the_last_validation_is_of_the_weights_that_were_turned_back(
    tmp_path: Path, models: Any, text: str, stops: bool
) -> None:
    from lightning.pytorch import Callback

    validated = []

    class Looks(Callback):
        def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
            validated.append({name: value.clone() for name, value in pl_module.llm.named_parameters()})

    actions = [*([StopAtBudget(ahead=False)] if stops else []), RollBack(rounds=6)]
    budget = TextBudget(0.002, text, every_n_steps=1, actions=actions)
    model = make_model(*models, optimizer=adam, lr_schedule="constant")
    options = {"limit_val_batches": 1, "val_check_interval": 1, "num_sanity_val_steps": 0}
    trainer = fit(tmp_path, model, [budget, Looks()], max_steps=30 if stops else 1, **options)
    assert [reading.over for reading in budget.readings] == [False, True, False]
    assert trainer.global_step == len(validated) == 1
    assert all(torch.equal(value, validated[-1][name]) for name, value in model.llm.named_parameters())


@pytest.mark.parametrize("start", [None, PiSSA()], ids=["lora", "pissa"])
def test_the_way_back_of_lora_ends_at_the_untouched_model(tmp_path: Path, models: Any, start: Any) -> None:
    model = learned(models, tmp_path / "run", tuning=LoRA(r=2, start=start))
    model.eval()
    ids = torch.arange(3, 11)[None]
    way = model.way_back()
    layer = next(iter(lora_layers(model.llm).values()))
    inputs = torch.eye(layer.in_features)
    with torch.no_grad():
        whole = layer(inputs)
        tuned = model.llm(ids).logits
        untouched = AutoModelForCausalLM.from_pretrained(models[0]).eval()(ids).logits
        way.apply(0.5)
        half, between = model.llm(ids).logits, layer(inputs)
        way.apply(0.0)
        assert torch.allclose(between, (whole + layer(inputs)) / 2, atol=1e-6)
        assert not torch.allclose(whole, layer(inputs), atol=1e-4)
        assert torch.allclose(model.llm(ids).logits, untouched, atol=1e-5)
        way.apply(1.0)
        assert torch.equal(model.llm(ids).logits, tuned)
    assert not torch.allclose(tuned, untouched, atol=1e-4)
    assert not torch.allclose(half, tuned, atol=1e-5)


@pytest.mark.parametrize("tuning", [LoRA(use_dora=True), DepthUpScaling(0.5)], ids=["dora", "inserted"])
def test_what_has_no_way_back_is_refused(tmp_path: Path, models: Any, text: str, tuning: Any) -> None:
    with pytest.raises(UserError, match=rf"RollBack: {type(tuning).__name__} has no way back"):
        fit(tmp_path, make_model(*models, tuning=tuning), [TextBudget(0.1, text, actions=[RollBack()])])


def test_rounds_are_bounded() -> None:
    with pytest.raises(UserError, match="rounds: 0"):
        RollBack(rounds=0)
