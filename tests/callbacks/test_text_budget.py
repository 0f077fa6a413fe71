"""The budget of text: what it measures, that it leaves no trace, and how it ends a run."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.speech_run import make_data, make_model, make_trainer
from textkeep.callbacks import RunCheckpoint, RunCSVLogger, StopAtBudget, TextBudget
from textkeep.callbacks.budget.budget_action import BudgetAction, Reading
from textkeep.evaluation import Interval, LossIncrease
from textkeep.foundation.errors import UserError
from textkeep.foundation.run_names import budget_name
from textkeep.lightning_modules import AdaptorOnly, LoRA, SpeechTurns


@pytest.fixture
def text(tmp_path: Path) -> str:
    """A file of six passages."""
    path = tmp_path / "prose.txt"
    path.write_text("\n\n".join(f"Passage {i} tells {'more ' * (i % 3 + 1)}of plain things." for i in range(6)))
    return str(path)


def run(folder: Path, models: tuple[Path, Path], callbacks: list[Any], steps: int, **options: Any) -> Any:
    """Fits; gives the model and the trainer."""
    model = options.pop("model", None) or make_model(*models)
    logger = RunCSVLogger(str(folder))
    ckpt = options.pop("ckpt_path", None)
    settings = {"max_epochs": -1, "max_steps": steps, "limit_val_batches": 0, "logger": logger, **options}
    trainer = make_trainer(folder, callbacks, **settings)
    trainer.fit(model, make_data(folder / "data"), ckpt_path=ckpt, weights_only=False)
    return model, trainer


@pytest.fixture
def models(tiny_llm_dir: Path, tiny_whisper_dir: Path) -> tuple[Path, Path]:
    return tiny_llm_dir, tiny_whisper_dir


def logged(folder: Path, key: str) -> dict[int, float]:
    rows = csv.DictReader((folder / "metrics.csv").open())
    return {int(row["step"]): float(row[key]) for row in rows if row.get(key)}


def passage_losses(llm: Any, tokenizer: Any, path: str) -> tuple[float, int]:
    """Summed loss of each token after the first of all passages, one at a time."""
    total, count = 0.0, 0
    for passage in Path(path).read_text().split("\n\n"):
        ids = torch.tensor(tokenizer(passage)["input_ids"])
        with torch.no_grad():
            scores = llm(ids[None]).logits[0].double().log_softmax(-1)
        total -= sum(float(scores[i - 1, ids[i]]) for i in range(1, len(ids)))
        count += len(ids) - 1
    return total, count


def test_it_measures_the_loss_against_the_untouched_model(tmp_path: Path, models: Any, text: str) -> None:
    from transformers import AutoModelForCausalLM

    budget = TextBudget(5.0, text, every_n_steps=2, actions=[])
    model, _ = run(tmp_path / "run", models, [budget], 5)
    assert [reading.step for reading in budget.readings] == [0, 2, 4, 5]
    assert budget.readings[0].found.increase == (0.0, 0.0, 0.0)
    model.eval()
    (before, tokens), (after, _) = (
        passage_losses(llm, model.tokenizer, text)
        for llm in (AutoModelForCausalLM.from_pretrained(models[0]), model.llm)
    )
    last = budget.readings[-1].found
    assert last.before == pytest.approx(before / tokens, rel=1e-4)
    assert last.loss == pytest.approx(after / tokens, rel=1e-4)
    assert abs(last.increase.estimate) > 0.01
    assert last.increase.estimate == pytest.approx((after - before) / tokens, rel=1e-3)
    for name, wanted in (("increase", last.increase.estimate), ("high", last.increase.high), ("allowed", 5.0)):
        assert logged(tmp_path / "run", f"budget/prose/{name}")[5] == pytest.approx(wanted)


def test_it_measures_the_loss_against_a_base_that_is_named(tmp_path: Path, models: Any, text: str) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = AutoModelForCausalLM.from_pretrained(models[0])
    with torch.no_grad():
        for parameter in base.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)), alpha=0.05)
    base.save_pretrained(tmp_path / "base")
    AutoTokenizer.from_pretrained(models[0]).save_pretrained(tmp_path / "base")
    budget = TextBudget(5.0, text, every_n_steps=2, actions=[])
    model, _ = run(tmp_path / "run", models, [budget], 2, model=make_model(*models, base=str(tmp_path / "base")))
    began = AutoModelForCausalLM.from_pretrained(models[0])
    ((before, tokens), *after) = (passage_losses(m, model.tokenizer, text) for m in (base, began, model.eval().llm))
    assert [reading.step for reading in budget.readings] == [0, 2]
    for reading, (total, _) in zip(budget.readings, after, strict=True):
        assert abs(total - before) / tokens > 0.01
        assert reading.found.before == pytest.approx(before / tokens, rel=1e-4)
        assert reading.increase == pytest.approx((total - before) / tokens, rel=1e-3)
    assert model.reference._base is None  # a second model's memory


def test_measuring_alone_leaves_no_trace(tmp_path: Path, models: Any, text: str) -> None:
    states = [
        run(tmp_path / name, models, callbacks, 4)[0].state_dict()
        for name, callbacks in (("without", []), ("with", [TextBudget(0.1, text, every_n_steps=1, actions=[])]))
    ]
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


def test_a_probe_and_a_file_are_read_alike(tmp_path: Path, models: Any, text: str) -> None:
    from textkeep.datamodules import Probe

    budgets = [
        TextBudget(5.0, "probe", every_n_steps=2, actions=[]),
        TextBudget(5.0, text, every_n_steps=2, actions=[]),
    ]
    model = make_model(*models)
    trainer = make_trainer(tmp_path / "run", budgets, max_epochs=-1, max_steps=2, limit_val_batches=0)
    trainer.fit(model, make_data(tmp_path / "data", probes={"probe": Probe(text, examples=6, batch_size=4)}))
    first, second = (budget.readings[-1].found for budget in budgets)
    assert first.increase == pytest.approx(second.increase, abs=1e-5)
    assert first.loss == pytest.approx(second.loss, rel=1e-5)


def test_a_run_that_began_without_it_is_compared_with_the_untouched_model_too(
    tmp_path: Path, models: Any, text: str
) -> None:
    folder = tmp_path / "run"
    saving = {"enable_checkpointing": True}
    run(folder, models, [RunCheckpoint()], 2, **saving)
    budget = TextBudget(5.0, text, every_n_steps=2, actions=[])
    _, trainer = run(folder, models, [budget], 4, ckpt_path=str(folder / "checkpoints/last.ckpt"), **saving)
    whole = TextBudget(5.0, text, every_n_steps=2, actions=[])
    run(tmp_path / "whole", models, [whole], 2)
    assert [reading.step for reading in budget.readings] == [0, 2, 4]
    assert budget.readings[1].found.before == pytest.approx(whole.readings[0].found.before, rel=1e-6)
    assert sorted(logged(folder, "budget/prose/increase")) == [2, 4]
    assert trainer.global_step == 4
    assert trainer.lightning_module.reference._copy is None  # a second model's memory


def test_a_second_fit_is_measured_like_the_first(tmp_path: Path, models: Any, text: str) -> None:
    from textkeep.callbacks import ControlWeight
    from textkeep.lightning_modules import L2SP, AnswerCrossEntropy

    control = ControlWeight("l2sp", gain=2.0)
    budget = TextBudget(0.01, text, every_n_steps=1, actions=[control])
    found = []
    for name in ("one", "other"):
        model = make_model(*models, objectives=[AnswerCrossEntropy(), L2SP(0.5)])
        run(tmp_path / name, models, [budget], 2, model=model)
        found.append((budget.readings, model.objectives.weights, logged(tmp_path / name, "budget/prose/increase")))
    assert [reading.step for reading in found[0][0]] == sorted(found[0][2]) == [0, 1, 2]
    assert found[0] == found[1]


def reading(step: int, increase: float, every: int = 10) -> Reading:
    return Reading(step, LossIncrease(3.0 + increase, 3.0, Interval(increase, increase, increase)), 0.1, every)


class Stoppable:
    should_stop = False


@pytest.mark.parametrize(
    ("increases", "ahead", "stops"),
    [
        ([0.0, 0.04, 0.07], True, False),  # 0.10 is not over 0.1
        ([0.0, 0.03, 0.07], True, True),
        ([0.0, 0.03, 0.07], False, False),
        ([0.0, 0.09, 0.08], True, False),  # falling
        ([0.0, 0.05, 0.11], False, True),
        ([0.0, 0.12, 0.11], True, True),
        ([0.0, 0.05, float("nan")], False, True),  # a loss that is no number is inside of no budget
    ],
)
def test_when_it_stops(increases: list[float], ahead: bool, stops: bool) -> None:
    trainer = Stoppable()
    readings = [reading(10 * i, value) for i, value in enumerate(increases)]
    StopAtBudget(ahead).measured(trainer, None, readings)  # type: ignore[arg-type]
    assert trainer.should_stop is stops


def test_a_run_ends_at_its_budget_and_its_last_checkpoint_is_that_step(tmp_path: Path, models: Any, text: str) -> None:
    free = TextBudget(5.0, text, every_n_steps=1, actions=[])
    run(tmp_path / "free", models, [free], 6)
    rises = [reading.increase for reading in free.readings]
    allowed = max(rises) / 2
    passes = next(i for i, rise in enumerate(rises) if rise > allowed)
    budget = TextBudget(allowed, text, every_n_steps=1, actions=[StopAtBudget(ahead=False)])
    checkpoint = RunCheckpoint(every_n_train_steps=100)
    _, trainer = run(tmp_path / "run", models, [budget, checkpoint], 6, enable_checkpointing=True)
    assert trainer.global_step == passes < 6
    assert [path.name for path in (tmp_path / "run/checkpoints").glob("step*")] == [f"step={passes:06d}.ckpt"]
    assert [reading.increase for reading in budget.readings] == rises[: passes + 1]  # one measurement a step, no more


@pytest.mark.parametrize(("looser", "more"), [(1.0, 0), (100.0, 2)], ids=["as it was", "another budget"])
def test_a_run_that_ended_at_its_budget_does_not_go_on_when_it_is_continued(
    tmp_path: Path, models: Any, text: str, looser: float, more: int
) -> None:
    """A process that is lost while the last step is validated leaves that step's checkpoint."""
    folder, allowed, steps = tmp_path / "run", 0.01, []
    path = None
    for factor in (1.0, looser):
        budget = TextBudget(allowed * factor, text, every_n_steps=1, actions=[StopAtBudget(ahead=False)])
        limit = 30 if path is None else steps[0] + 2
        callbacks = [budget, RunCheckpoint(every_n_train_steps=1)]
        _, trainer = run(folder, models, callbacks, limit, ckpt_path=path, enable_checkpointing=True)
        path = str(folder / "checkpoints/last.ckpt")
        steps.append(trainer.global_step)
    assert steps == [steps[0], steps[0] + more]
    assert 0 < steps[0] < 28


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_increase": 0.0}, r"max_increase: 0\.0 \(allowed: positive"),
        ({"max_increase": float("nan")}, "max_increase: nan"),
        ({"max_increase": 0.1, "every_n_steps": 0}, "every_n_steps: 0"),
        ({"max_increase": 0.1, "limit": 0}, "limit: 0"),
    ],
)
def test_bad_settings_are_refused_at_once(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        TextBudget(text="x.txt", **settings)


def test_what_cannot_be_read_is_refused_before_training(tmp_path: Path, models: Any) -> None:
    with pytest.raises(UserError, match=r"TextBudget\.text: .*nothing.*data\.sets.*data\.probes \(none is defined\)"):
        run(tmp_path / "run", models, [TextBudget(0.1, "nothing.jsonl")], 1)


@pytest.mark.parametrize("tuning", [AdaptorOnly(), LoRA(gate=SpeechTurns())], ids=["adaptor", "gated"])
def test_a_model_whose_text_cannot_change_has_no_budget(tmp_path: Path, models: Any, text: str, tuning: Any) -> None:
    with pytest.raises(UserError, match="cannot change what the LLM does with text"):
        run(tmp_path / "run", models, [TextBudget(0.1, text)], 1, model=make_model(*models, tuning=tuning))


def test_the_names_of_texts_in_keys() -> None:
    named = {
        "plain-text/probe": "plain-text-probe",
        "my/data/prose.txt": "prose",
        "a.jsonl.gz": "a",
        "held_out": "held_out",
    }
    assert {text: budget_name(text) for text in named} == named


DDP = """
import json, sys
from pathlib import Path
import torch
from textkeep.callbacks import ControlWeight, TextBudget
from textkeep.lightning_modules import L2SP, AnswerCrossEntropy
from tests.support.speech_run import make_data, make_model, make_trainer
llm, whisper, folder, text, devices = *map(Path, sys.argv[1:4]), sys.argv[4], int(sys.argv[5])
budget = TextBudget(0.05, text, every_n_steps=2, actions=[ControlWeight("l2sp", gain=2.0)])
trainer = make_trainer(folder / f"run{devices}", [budget], devices=devices, max_epochs=-1, max_steps=4,
                       limit_val_batches=0, strategy="ddp" if devices > 1 else "auto")
model = make_model(llm, whisper, objectives=[AnswerCrossEntropy(), L2SP(0.1)])
trainer.fit(model, make_data(folder / "data"))
digest = float(sum(p.double().abs().sum() for p in model.llm.parameters()))
found = {"weight": model.objectives.weights["l2sp"], "digest": digest,
         "readings": [[r.step, r.found.before, *r.found.increase] for r in budget.readings]}
(folder / f"found{devices}-{trainer.global_rank}.json").write_text(json.dumps(found))
"""


@pytest.mark.slow
def test_two_processes_share_the_passages_and_set_one_weight(tmp_path: Path, models: Any, text: str) -> None:
    script = tmp_path / "fit.py"
    script.write_text(DDP)
    root = Path(__file__).parents[2]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    for devices in (1, 2):
        words = [sys.executable, str(script), *map(str, models), str(tmp_path), text, str(devices)]
        done = subprocess.run(words, env=env, cwd=root, capture_output=True, text=True, timeout=280)
        assert done.returncode == 0, done.stderr[-2000:]
    one, first, second = (json.loads((tmp_path / f"found{name}.json").read_text()) for name in ("1-0", "2-0", "2-1"))
    assert first == second  # weight, readings and weights of the LLM, bit for bit
    assert first["weight"] != 0.1
    assert [reading[0] for reading in first["readings"]] == [0, 2, 4]
    assert first["readings"][0][1] == pytest.approx(one["readings"][0][1], rel=1e-5)  # every passage once


def test_budgets_whose_figures_would_have_one_name_are_refused(tmp_path: Path, models: Any, text: str) -> None:
    other = tmp_path / "other" / "prose.txt"
    other.parent.mkdir()
    other.write_text(Path(text).read_text())
    budgets = [TextBudget(0.1, path, actions=[]) for path in (text, str(other))]
    with pytest.raises(UserError, match=r"prose\.txt would be logged as one budget/prose/increase \(allowed: files"):
        run(tmp_path / "run", models, budgets, 1)


@pytest.mark.parametrize("by_probe", [False, True], ids=["text", "probe"])
def test_text_that_training_reads_is_refused(tmp_path: Path, models: Any, text: str, by_probe: bool) -> None:
    from textkeep.datamodules import Probe
    from textkeep.lightning_modules import AnswerCrossEntropy, PlainTextReplay

    model = make_model(*models, objectives=[AnswerCrossEntropy(), PlainTextReplay(text)])
    budget = TextBudget(0.1, "kept" if by_probe else text)
    trainer = make_trainer(tmp_path / "run", [budget], max_steps=1)
    with pytest.raises(UserError, match="is the text that PlainTextReplay trains on"):
        trainer.fit(model, make_data(tmp_path / "data", probes={"kept": Probe(text, examples=6)}))


@pytest.mark.parametrize("factors", [{0: 1, 1: 3}, {0: 3, 1: 1}], ids=["rising", "falling"])
def test_it_ends_with_the_run_where_accumulation_changes(
    tmp_path: Path, models: Any, text: str, factors: dict[int, int]
) -> None:
    """Three batches an epoch, three epochs; with rising factors the Trainer expects 3 steps from the second on."""
    from lightning.pytorch.callbacks import GradientAccumulationScheduler

    ended = []

    class Ends(BudgetAction):
        def finish(self, trainer: Any, *args: Any) -> bool:
            ended.append(trainer.global_step)
            return False

    callbacks = [TextBudget(0.1, text, 100, [Ends()]), GradientAccumulationScheduler(factors)]
    _, trainer = run(tmp_path / "run", models, callbacks, -1, max_epochs=3, limit_train_batches=3)
    assert ended == [trainer.global_step] == [sum(3 // factors[min(epoch, 1)] for epoch in range(3))]
