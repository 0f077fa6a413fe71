"""Objectives that read plain text beside the questions: what they ask and read, and that a run goes on exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from scipy.special import rel_entr
from transformers import AutoModelForCausalLM

from tests.support.speech_run import make_data, make_model, make_trainer
from textkeep.callbacks import RunCheckpoint, SeededBatches, StepCompletion
from textkeep.foundation.errors import UserError
from textkeep.lightning_modules import AnswerCrossEntropy, PlainTextDistillation, PlainTextReplay


@pytest.fixture
def text(tmp_path: Path) -> str:
    path = tmp_path / "prose.txt"
    path.write_text("\n\n".join(f"Passage {i} tells {'more ' * (i % 3 + 1)}of plain things." for i in range(6)))
    return str(path)


class Steps(Callback):
    """Notes what each batch read beside it, and what was logged of it."""

    def __init__(self, term: Any) -> None:
        self.term = term
        self.read: list[list[str]] = []
        self.values: list[dict[str, float]] = []
        self.weights: list[dict[str, torch.Tensor]] = []
        self.labels: list[torch.Tensor] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.weights.append({name: p.detach().clone() for name, p in pl_module.llm.named_parameters()})
        self.labels.append(batch.labels)

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        self.read.append(list(self.term._read.ids))
        self.values.append({key: float(value) for key, value in trainer.callback_metrics.items()})


def fit(folder: Path, models: tuple[Path, Path], term: Any, steps: int, ckpt: Path | None = None) -> tuple[Any, Steps]:
    model = make_model(*models, dropout=0.0, objectives=[AnswerCrossEntropy(), term])
    noted = Steps(term)
    callbacks = [noted, RunCheckpoint(every_n_train_steps=1, save_top_k=-1), StepCompletion(), SeededBatches()]
    options = {"max_epochs": -1, "max_steps": steps, "limit_val_batches": 0, "enable_checkpointing": True}
    trainer = make_trainer(folder, callbacks, **options)
    path = None if ckpt is None else str(ckpt)
    trainer.fit(model, make_data(folder / "data"), ckpt_path=path, weights_only=False)
    return model, noted


@pytest.fixture
def models(tiny_llm_dir: Path, tiny_whisper_dir: Path) -> tuple[Path, Path]:
    return tiny_llm_dir, tiny_whisper_dir


def log_probs(llm: Any, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return llm(torch.tensor([ids])).logits[0, :-1].double().log_softmax(-1)


@pytest.mark.parametrize("kind", [PlainTextDistillation, PlainTextReplay])
def test_the_value_is_the_mean_over_tokens_of_the_cut_passages(
    tmp_path: Path, models: Any, text: str, kind: Any
) -> None:
    """Read one passage at a time, with scipy's relative entropy; before the second step, when the LLM has moved."""
    model, noted = fit(tmp_path / "run", models, kind(text, passages=3, tokens=9), 2)
    untouched = AutoModelForCausalLM.from_pretrained(models[0]).eval()
    moved = AutoModelForCausalLM.from_pretrained(models[0]).eval()
    moved.load_state_dict(noted.weights[1], strict=False)
    passages = dict(enumerate(Path(text).read_text().split("\n\n")))
    found, tokens = 0.0, 0
    for identity in noted.read[1]:
        line = int(identity.split(":")[1])  # of the file: every second one is empty
        ids = model.tokenizer(passages[line // 2])["input_ids"][:9]
        now = log_probs(moved, ids)
        if kind is PlainTextReplay:
            found -= sum(float(row[wanted]) for row, wanted in zip(now, ids[1:], strict=True))
        else:
            found += float(rel_entr(log_probs(untouched, ids).exp(), now.exp()).sum())
        tokens += len(ids) - 1
    assert tokens == 24
    assert noted.values[1][f"train/{kind.name}"] == pytest.approx(found / tokens, rel=1e-3)
    assert found / tokens > 1e-4


def test_a_nat_of_text_weighs_as_a_nat_of_answer(tmp_path: Path, models: Any, text: str) -> None:
    _, noted = fit(tmp_path / "run", models, PlainTextReplay(text, weight=0.5, passages=2), 2)
    for values in noted.values:
        total = values["train/answer_ce"] + 0.5 * values["train/plain_text_ce"]
        assert values["train/loss"] == pytest.approx(total, rel=1e-5)


def test_other_passages_are_read_beside_each_batch_and_none_twice(tmp_path: Path, models: Any, text: str) -> None:
    _, noted = fit(tmp_path / "run", models, PlainTextReplay(text, passages=4), 5)
    assert all(len(set(read)) == 4 for read in noted.read)
    assert len({tuple(sorted(read)) for read in noted.read}) > 1
    _, other = fit(tmp_path / "other", models, PlainTextReplay(text, passages=4, seed=1), 5)
    assert other.read != noted.read


@pytest.mark.parametrize("kind", [PlainTextDistillation, PlainTextReplay])
def test_a_continued_run_is_the_same_run(tmp_path: Path, models: Any, text: str, kind: Any) -> None:
    whole, noted = fit(tmp_path / "whole", models, kind(text), 4)
    checkpoint = tmp_path / "whole/checkpoints/step=000002.ckpt"
    again, rest = fit(tmp_path / "again", models, kind(text), 4, checkpoint)
    assert noted.read[2:] == rest.read
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in whole.state_dict().items())


def test_distillation_keeps_the_text(tmp_path: Path, models: Any, text: str) -> None:
    """With a strong weight the LLM ends nearer to the untouched one on text that it did not read."""
    prompt = "Something else is told here at some length"
    untouched = AutoModelForCausalLM.from_pretrained(models[0]).eval()
    far = []
    for weight in (1e-6, 3.0):
        model, _ = fit(tmp_path / str(weight), models, PlainTextDistillation(text, weight, passages=6), 6)
        model.eval()
        ids = model.tokenizer(prompt)["input_ids"]
        far.append(float(rel_entr(log_probs(untouched, ids).exp(), log_probs(model.llm, ids).exp()).sum()))
    assert far[1] < 0.7 * far[0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"passages": 0}, r"PlainTextReplay\.passages: 0 \(allowed: at least 1\)"),
        ({"tokens": 1}, r"PlainTextReplay\.tokens: 1"),
    ],
)
def test_bad_settings_are_refused_at_once(settings: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        PlainTextReplay(**settings)


def test_text_that_is_missing_or_too_little_is_refused(tmp_path: Path, models: Any, text: str) -> None:
    with pytest.raises(UserError, match=r"PlainTextReplay\.text: .*nothing\.txt"):
        fit(tmp_path / "a", models, PlainTextReplay("nothing.txt"), 1)
    with pytest.raises(UserError, match=r"prose\.txt has 6 passages, and a step reads 7"):
        fit(tmp_path / "b", models, PlainTextReplay(text, passages=7), 1)
