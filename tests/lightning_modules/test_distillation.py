"""Distillation from the untouched LLM: its formulas, its rows, its teachers."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import rel_entr, softmax
from torch import Tensor

from tests.support.speech_batches import make_batch
from tests.support.speech_run import make_data, make_model, make_trainer
from textkeep.callbacks import RunCheckpoint
from textkeep.datamodules.batches.batch import Batch
from textkeep.lightning_modules import AnswerCrossEntropy, CachedTeacher, SpeechLLM, TextTwinDistillation
from textkeep.lightning_modules.losses.answer_loss import predict_answers
from textkeep.lightning_modules.losses.divergence import divergence, top_divergence
from textkeep.lightning_modules.objectives.loss_terms import LossTerms


def random_logits(count: int = 5, vocabulary: int = 17) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    teacher, student = (3 * torch.randn(count, vocabulary, generator=generator) for _ in range(2))
    return teacher, student


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_divergence_is_scipys_relative_entropy_of_teacher_and_student(temperature: float) -> None:
    teacher, student = random_logits()
    p, q = (softmax(logits.double().numpy() / temperature, axis=-1) for logits in (teacher, student))
    found = divergence(teacher, student, temperature).numpy()
    assert found == pytest.approx(rel_entr(p, q).sum(axis=-1), rel=1e-5)
    assert found != pytest.approx(rel_entr(q, p).sum(axis=-1), rel=0.01)  # the direction matters


@pytest.mark.parametrize("top_k", [1, 4, 16])
def test_the_top_divergence_merges_the_rest_into_one_outcome(top_k: int) -> None:
    teacher, student = random_logits()
    top = (teacher / 2.0).log_softmax(dim=-1).topk(top_k)
    p, q = (softmax(logits.double().numpy() / 2.0, axis=-1) for logits in (teacher, student))

    def merged(probabilities: np.ndarray) -> np.ndarray:
        kept = np.take_along_axis(probabilities, top.indices.numpy(), axis=-1)
        return np.concatenate([kept, 1 - kept.sum(axis=-1, keepdims=True)], axis=-1)

    found = top_divergence(top.values, top.indices, student, 2.0)
    assert found.numpy() == pytest.approx(rel_entr(merged(p), merged(q)).sum(axis=-1), rel=1e-4)
    exact = divergence(teacher, student, 2.0)
    assert (found <= exact + 1e-5).all()
    if top_k == 16:  # of 17: the rest is a single token, and nothing is lost
        torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-5)


def test_the_top_divergence_has_the_gradient_of_its_double() -> None:
    teacher, student = random_logits()
    top = teacher.log_softmax(dim=-1).topk(4)
    single, double = student.clone().requires_grad_(), student.double().requires_grad_()
    top_divergence(top.values, top.indices, single).sum().backward()
    log_q = double.log_softmax(dim=-1)
    p, q = top.values.double().exp(), log_q.gather(-1, top.indices).exp()
    rest_p, rest_q = 1 - p.sum(-1), 1 - q.sum(-1)
    ((p * (p / q).log()).sum() + (rest_p * (rest_p / rest_q).log()).sum()).backward()
    torch.testing.assert_close(single.grad.double(), double.grad, rtol=1e-4, atol=1e-5)  # type: ignore[union-attr]
    # A certain teacher leaves no rest, and nothing becomes NaN.
    certain = student.clone().requires_grad_()
    top_divergence(torch.zeros(5, 1), top.indices[:, :1], certain).sum().backward()
    assert torch.isfinite(certain.grad).all()  # type: ignore[arg-type]


def paired(model: SpeechLLM, without: tuple[int, ...] = ()) -> Batch:
    """Three spoken questions with their twins; the questions of rows ``without`` are not known as text."""
    return make_batch(model, [40, 55, 73], twins=True, unwritten=without)


@pytest.fixture
def moved(model: SpeechLLM) -> SpeechLLM:
    """A model that is no longer what it was."""
    with torch.no_grad():
        for parameter in model.llm.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)))
    return model.eval()


def logits_of(llm: Any, model: SpeechLLM, batch: Batch, row: int, as_heard: bool) -> np.ndarray:
    """What a model predicts for the answer of one row, alone and without its padding."""
    if as_heard:
        inputs = {name: tensor[row : row + 1] for name, tensor in model.embed(batch).items()}
    else:
        embeds = llm.get_input_embeddings()(batch.input_ids[row : row + 1])
        labels, mask = batch.labels[row : row + 1], batch.attention_mask[row : row + 1]
        inputs = {"inputs_embeds": embeds, "labels": labels, "attention_mask": mask}
    found = predict_answers(llm, **inputs)
    return found.logits[found.targets != -100].detach().double().numpy()


def expected(model: SpeechLLM, batch: Batch, row: int, heard: bool, tau: float) -> np.ndarray:
    """tau^2 KL(untouched reading || model hearing or reading) at each answer token of a row."""
    assert batch.twin is not None
    with model.reference.active() as untouched:
        p = softmax(logits_of(untouched, model, batch.twin, row, False) / tau, axis=-1)
    q = softmax(logits_of(model.llm, model, batch if heard else batch.twin, row, heard) / tau, axis=-1)
    return tau**2 * rel_entr(p, q).sum(axis=-1)


def test_both_terms_compare_the_untouched_reader_with_the_model(moved: SpeechLLM) -> None:
    batch = paired(moved)
    objective = TextTwinDistillation(speech=1.0, text=0.5, temperature=2.0)
    loss, tokens = objective(moved, batch)
    heard = sum(expected(moved, batch, row, True, 2.0).sum() for row in range(3))
    read = sum(expected(moved, batch, row, False, 2.0).sum() for row in range(3))
    assert tokens.item() == 9
    assert loss.item() == pytest.approx(heard + 0.5 * read, rel=1e-3)
    assert objective.figures["speech"].item() == pytest.approx(heard / 9, rel=1e-3)
    assert objective.figures["text"].item() == pytest.approx(read / 9, rel=1e-3)
    loss.backward()
    assert all(p.grad is not None for p in moved.adaptor.parameters())
    assert all(not p.requires_grad for p in moved.reference._copy.parameters())


def test_the_end_of_the_turn_can_be_left_out_and_so_are_rows_without_text(moved: SpeechLLM) -> None:
    batch = paired(moved, without=(1,))
    objective = TextTwinDistillation(text=0.0, end_of_turn=False)
    loss, tokens = objective(moved, batch)
    wanted = sum(expected(moved, batch, row, True, 2.0)[:-1].sum() for row in (0, 2))
    assert tokens.item() == 1 + 3
    assert loss.item() == pytest.approx(wanted, rel=1e-3)
    assert objective.figures["skipped"].item() == 1
    nothing, none = TextTwinDistillation()(moved, paired(moved, without=(0, 1, 2)))
    assert (nothing.item(), none.item()) == (0.0, 0)
    nothing.backward()
    assert all(not p.grad.any() for p in moved.llm.parameters())


def test_a_text_batch_is_compared_with_itself(moved: SpeechLLM) -> None:
    batch = paired(moved)
    assert batch.twin is not None
    loss, tokens = TextTwinDistillation(temperature=1.0)(moved, batch.twin)
    wanted = sum(expected(moved, batch, row, False, 1.0).sum() for row in range(3))
    assert (loss.item(), tokens.item()) == (pytest.approx(wanted, rel=1e-3), 9)


def test_an_untouched_model_reads_as_its_teacher_does(model: SpeechLLM) -> None:
    loss, _ = TextTwinDistillation(speech=0.0)(model.eval(), paired(model))
    assert abs(loss.item()) < 1e-4


def test_objectives_of_a_step_share_the_forward_pass(model: SpeechLLM) -> None:
    batch, calls = paired(model.eval()), []
    model.llm.register_forward_hook(lambda *_: calls.append(1))
    objectives = [AnswerCrossEntropy(), TextTwinDistillation(weight=0.5)]
    with model._shared.step():
        total = LossTerms(objectives).total(model, batch)
    assert len(calls) == 2  # heard and read; not heard twice
    alone = AnswerCrossEntropy()(model, batch)[0] + 0.5 * TextTwinDistillation()(model, batch)[0]
    torch.testing.assert_close(total.loss, alone)
    assert set(total.values) == {"answer_ce", *(f"distillation{x}" for x in ("", "_speech", "_text", "_skipped"))}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"speech": 0.0, "text": 0.0}, r"at least 0 each and one positive"),
        ({"speech": -1.0}, r"speech is -1\.0"),
        ({"temperature": 0.0}, r"temperature is 0\.0, but must be positive"),
        ({"weight": 0.0}, r"weight is 0\.0, but must be positive"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TextTwinDistillation(**options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="top_k is 0"):
        CachedTeacher("cache", top_k=0)


def started(model: SpeechLLM, folder: Path, batches: list[Batch], top_k: int = 390) -> CachedTeacher:
    """A cached teacher that has met the text of these batches."""
    from contextlib import nullcontext

    model._trainer = SimpleNamespace(  # type: ignore[assignment]
        datamodule=SimpleNamespace(training_texts=lambda: [b.twin or b for b in batches]),
        precision_plugin=SimpleNamespace(forward_context=nullcontext),
        strategy=SimpleNamespace(barrier=lambda _: None),
    )
    teacher = CachedTeacher(str(folder), top_k)
    teacher.start(model, 2.0)
    return teacher


def test_a_cached_teacher_says_what_the_live_one_says(moved: SpeechLLM, tmp_path: Path) -> None:
    batch = paired(moved, without=(1,))
    teacher = started(moved, tmp_path, [batch])
    assert moved.reference._copy is None  # freed before training
    live, count = TextTwinDistillation(end_of_turn=False)(moved, batch)
    moved.reference.release()
    cached, same = TextTwinDistillation(end_of_turn=False, teacher=teacher)(moved, batch)
    assert count.item() == same.item() == 4
    assert cached.item() == pytest.approx(live.item(), rel=1e-3)
    assert moved.reference._copy is None
    fewer, _ = TextTwinDistillation(end_of_turn=False, teacher=started(moved, tmp_path, [batch], 3))(moved, batch)
    assert 0 < fewer.item() < cached.item()
    nothing, none = TextTwinDistillation(teacher=teacher)(moved, paired(moved, without=(0, 1, 2)))
    assert (nothing.item(), none.item()) == (0.0, 0)


def test_a_cache_goes_on_where_it_stopped(moved: SpeechLLM, tmp_path: Path) -> None:
    batch = paired(moved)
    teacher = started(moved, tmp_path, [batch])
    files = sorted(tmp_path.rglob("*.safetensors"))
    assert len(files) == 3
    times = {file: file.stat().st_mtime_ns for file in files}
    files[0].unlink()
    with pytest.raises(ValueError, match="is missing or damaged; start again, which computes it"):
        TextTwinDistillation(teacher=teacher)(moved, batch)
    files[1].write_bytes(b"half")
    with pytest.raises(ValueError, match="is missing or damaged"):
        TextTwinDistillation(teacher=teacher)(moved, batch)
    started(moved, tmp_path, [batch])
    assert sorted(tmp_path.rglob("*.safetensors")) == files
    assert files[2].stat().st_mtime_ns == times[files[2]]
    TextTwinDistillation(teacher=teacher)(moved, batch)


def test_another_model_finds_nothing(moved: SpeechLLM, tmp_path: Path) -> None:
    batch = paired(moved)
    teacher = started(moved, tmp_path, [batch])
    moved.reference.fingerprint = "another"
    with pytest.raises(ValueError, match="is missing"):
        TextTwinDistillation(teacher=teacher)(moved, batch)


class Losses:
    """Keeps what each training step logged."""

    def __init__(self) -> None:
        self.found: dict[int, dict[str, float]] = {}

    def callback(self) -> Any:
        from lightning.pytorch import Callback

        keeper = self

        class Keep(Callback):
            def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
                names = ("train/loss", "train/answer_ce", "train/distillation")
                keeper.found[trainer.global_step] = {name: float(trainer.callback_metrics[name]) for name in names}

        return Keep()


@pytest.mark.parametrize("cached", [False, True])
def test_a_run_continues_exactly(tmp_path: Path, tiny_llm_dir: Path, tiny_whisper_dir: Path, cached: bool) -> None:
    def fit(name: str, checkpoint: Path | None = None) -> dict[int, dict[str, float]]:
        teacher = CachedTeacher(str(tmp_path / "cache"), 50) if cached else None
        model = make_model(tiny_llm_dir, tiny_whisper_dir, dropout=0.0)
        model.objectives = LossTerms([AnswerCrossEntropy(), TextTwinDistillation(teacher=teacher)])
        losses = Losses()
        callbacks = [losses.callback(), RunCheckpoint(every_n_train_steps=3, save_top_k=-1)]
        options: dict[str, Any] = {"max_epochs": -1, "max_steps": 7, "enable_checkpointing": True}
        trainer = make_trainer(tmp_path / name, callbacks, **options)
        ckpt = str(checkpoint) if checkpoint else None
        trainer.fit(model, make_data(tmp_path / "data"), ckpt_path=ckpt, weights_only=False)
        return losses.found

    whole = fit("whole")
    rest = fit("rest", tmp_path / "whole/checkpoints/step=000003.ckpt")
    assert rest == {step: whole[step] for step in range(4, 8)}
    assert all(metrics["train/distillation"] > 0 for step, metrics in whole.items() if step > 2)
