"""EWC and L2-SP: values and gradients against autograd, what they pull, what they refuse, exact continuation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from tests.support.speech_run import make_data, make_model, make_trainer
from textkeep.callbacks import RunCheckpoint
from textkeep.importance import Snapshot, probe
from textkeep.lightning_modules import (
    EWC,
    L2SP,
    AdaptorOnly,
    AnswerCrossEntropy,
    ConcatMLP,
    CTCAlignment,
    LoRA,
    SpeechLLM,
    WhisperEncoder,
)
from textkeep.lightning_modules.contract import Batch, SpeechModel
from textkeep.lightning_modules.objectives import pull as pull_module
from textkeep.lightning_modules.objectives.loss_terms import LossTerms
from textkeep.lightning_modules.objectives.pull import Pull, add_pull, pull_value


def snapshot_of(llm: nn.Module, folder: Path, estimators: tuple[str, ...] = ("fisher", "taylor")) -> Path:
    """A measured snapshot with maps."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 300, (4, 9), generator=generator)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}
    return probe(llm, [batch], estimators, keep_maps=estimators).save(folder)


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory, tiny_llm_dir: Path) -> Path:
    llm = AutoModelForCausalLM.from_pretrained(tiny_llm_dir)
    return snapshot_of(llm, tmp_path_factory.mktemp("snapshot") / "fisher")


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("piece", [7, 1 << 24])
def test_value_and_gradient_are_autograds_in_double(
    monkeypatch: pytest.MonkeyPatch, weighted: bool, piece: int
) -> None:
    monkeypatch.setattr(pull_module, "PIECE", piece)
    generator = torch.Generator().manual_seed(1)
    shapes = [(5, 8), (3,), (4, 4)]
    weights = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
    anchors = [torch.randn(shape, generator=generator) for shape in shapes]
    strengths = [torch.rand(shape, generator=generator) if weighted else None for shape in shapes]
    weights[0].grad = torch.ones(5, 8)
    pulls = [Pull(*row) for row in zip(weights, anchors, strengths, strict=True)]
    doubles = [weight.detach().double().requires_grad_() for weight in weights]
    loss = torch.zeros((), dtype=torch.float64)
    for double, anchor, strength in zip(doubles, anchors, strengths, strict=True):
        factor = torch.ones_like(double) if strength is None else strength.double()
        loss = loss + 0.5 * (factor * (double - anchor.double()) ** 2).sum()
    assert pull_value(pulls).item() == pytest.approx(loss.item(), rel=1e-6)
    (3.0 * loss).backward()
    add_pull(pulls, 3.0)
    for index, (weight, double) in enumerate(zip(weights, doubles, strict=True)):
        wanted = double.grad + (1 if index == 0 else 0)  # type: ignore[operator]
        torch.testing.assert_close(weight.grad.double(), wanted, rtol=1e-5, atol=1e-6)  # type: ignore[union-attr]


def moved(model: SpeechLLM) -> SpeechLLM:
    with torch.no_grad():
        for parameter in model.llm.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)))
    return model


def test_ewc_pulls_the_matrices_of_the_snapshot_by_their_fisher(model: SpeechLLM, snapshot: Path) -> None:
    fisher = Snapshot.load(snapshot).parameters("fisher")
    before = {name: parameter.detach().double() for name, parameter in model.llm.named_parameters()}
    moved(model)
    objective = EWC(str(snapshot), weight=50.0)
    value = objective.value(model)
    after = dict(model.llm.named_parameters())
    wanted = sum(0.5 * (f.double() * (after[n].double() - before[n]) ** 2).sum() for n, f in fisher.items())
    assert not value.requires_grad
    assert value.item() == pytest.approx(float(wanted), rel=1e-5)
    objective.add_gradient(model)
    for name, parameter in after.items():
        if name not in fisher:
            assert parameter.grad is None
            continue
        gradient = 50.0 * fisher[name] * (parameter.detach() - before[name].float())
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-5, atol=1e-9)


def test_l2sp_pulls_all_or_the_decoder_or_by_importance(model: SpeechLLM, snapshot: Path) -> None:
    before = {name: parameter.detach().clone() for name, parameter in model.llm.named_parameters()}
    moved(model)
    after = dict(model.llm.named_parameters())
    square = {name: ((after[name] - before[name]).double() ** 2).sum().item() for name in before}
    assert L2SP().value(model).item() == pytest.approx(sum(square.values()) / 2, rel=1e-5)
    inside = sum(value for name, value in square.items() if ".layers." in name)
    assert inside < 0.9 * sum(square.values())
    assert L2SP(parameters="decoder").value(model).item() == pytest.approx(inside / 2, rel=1e-5)
    maps = {name: m.double() for name, m in Snapshot.load(snapshot).parameters("taylor").items()}
    mean = torch.cat([m.flatten() for m in maps.values()]).mean()
    weighted = sum(0.5 * (m / mean * (after[n] - before[n]).double() ** 2).sum() for n, m in maps.items())
    assert L2SP(snapshot=str(snapshot)).value(model).item() == pytest.approx(float(weighted), rel=1e-5)


class ByAutograd(AnswerCrossEntropy):
    """Cross-entropy and L2-SP in one backward pass, with a factor that cancels: the oracle of a whole training run."""

    def __init__(self, weight: float, llm: nn.Module) -> None:
        super().__init__()
        self.pull = weight
        self.anchors = {name: parameter.detach().clone() for name, parameter in llm.named_parameters()}

    def forward(self, model: SpeechModel, batch: Batch) -> tuple[Tensor, Tensor]:
        loss, tokens = super().forward(model, batch)
        terms = [((p - self.anchors[name]) ** 2).sum() for name, p in model.llm.named_parameters()]
        l2sp = torch.stack(terms).sum() / 2
        self.figures = {"without": loss.detach() / tokens, "l2sp": l2sp.detach()}
        return loss + self.pull * tokens * l2sp, tokens


class Logged(Callback):
    """What each optimizer step logged."""

    def __init__(self, *names: str) -> None:
        self.names = names
        self.found: dict[int, dict[str, float]] = {}

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        self.found[trainer.global_step] = {name: float(trainer.callback_metrics[name]) for name in self.names}


def test_a_run_equals_one_whose_penalty_goes_through_autograd(
    tmp_path: Path, tiny_llm_dir: Path, tiny_whisper_dir: Path
) -> None:
    """Under accumulation and clipping: the penalty counts once an optimizer step, before the gradients are clipped."""
    states, losses = [], []
    for by_autograd in (False, True):
        model = make_model(tiny_llm_dir, tiny_whisper_dir, dropout=0.0)
        terms = [ByAutograd(3.0, model.llm)] if by_autograd else [AnswerCrossEntropy(), L2SP(weight=3.0)]
        model.objectives = LossTerms(terms)
        names = ("answer_ce_l2sp", "answer_ce_without") if by_autograd else ("l2sp", "answer_ce")
        logged = Logged("train/loss", *(f"train/{name}" for name in names))
        options: dict[str, Any] = {"accumulate_grad_batches": 2, "gradient_clip_val": 0.5}
        make_trainer(tmp_path, [logged], **options).fit(model, make_data(tmp_path / "data"))
        states.append(model.state_dict())
        losses.append({step: list(found.values()) for step, found in logged.found.items()})
    for name, tensor in states[0].items():
        torch.testing.assert_close(tensor, states[1][name], rtol=1e-4, atol=1e-6)
    for step, found in losses[0].items():
        assert found == pytest.approx(losses[1][step], rel=1e-3, abs=1e-7)
        assert found[0] == pytest.approx(found[2] + 3.0 * found[1], rel=1e-6)
    assert list(losses[0].values())[-1][1] > 0


def test_a_run_with_ewc_continues_exactly(
    tmp_path: Path, tiny_llm_dir: Path, tiny_whisper_dir: Path, snapshot: Path
) -> None:
    def fit(name: str, checkpoint: Path | None = None) -> dict[int, dict[str, float]]:
        model = make_model(tiny_llm_dir, tiny_whisper_dir, dropout=0.0)
        model.objectives = LossTerms([AnswerCrossEntropy(), EWC(str(snapshot), weight=100.0)])
        logged = Logged("train/loss", "train/ewc")
        callbacks = [logged, RunCheckpoint(every_n_train_steps=3, save_top_k=-1)]
        options: dict[str, Any] = {"max_epochs": -1, "max_steps": 7, "enable_checkpointing": True}
        trainer = make_trainer(tmp_path / name, callbacks, **options)
        ckpt = str(checkpoint) if checkpoint else None
        trainer.fit(model, make_data(tmp_path / "data"), ckpt_path=ckpt, weights_only=False)
        return logged.found

    whole = fit("whole")
    rest = fit("rest", tmp_path / "whole/checkpoints/step=000003.ckpt")
    assert rest == {step: whole[step] for step in range(4, 8)}
    assert whole[7]["train/ewc"] > 0


@pytest.mark.parametrize("tuning", [AdaptorOnly(), LoRA()])
@pytest.mark.parametrize("penalty", [EWC("nowhere"), L2SP()])
def test_weights_that_never_move_cannot_be_pulled(
    tiny_llm_dir: Path, tiny_whisper_dir: Path, tuning: Any, penalty: Any
) -> None:
    parts = (str(tiny_llm_dir), WhisperEncoder(str(tiny_whisper_dir)), ConcatMLP(5, 16))
    wanted = rf"{type(penalty).__name__} draws the LLM's own weights back, but {type(tuning).__name__} never moves them"
    with pytest.raises(ValueError, match=wanted):
        SpeechLLM(*parts, tuning=tuning, objectives=[AnswerCrossEntropy(), penalty])


def test_a_penalty_alone_does_not_run_the_llm(tiny_llm_dir: Path, tiny_whisper_dir: Path) -> None:
    parts = (str(tiny_llm_dir), WhisperEncoder(str(tiny_whisper_dir)), ConcatMLP(5, 16))
    with pytest.raises(ValueError, match="CTCAlignment does not run the LLM"):
        SpeechLLM(*parts, objectives=[CTCAlignment(), L2SP()])


def test_nothing_trained_is_told_at_the_start(model: SpeechLLM) -> None:
    model.llm.requires_grad_(False)
    with pytest.raises(ValueError, match="L2SP draws the LLM's own weights back, but none of them is trained"):
        L2SP().start(model)


def test_snapshots_that_do_not_fit_are_named(model: SpeechLLM, snapshot: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"EWC\.snapshot: no snapshot in .*nowhere; make one with `textkeep importance"
    ):
        EWC(str(tmp_path / "nowhere")).start(model)
    without = Snapshot.load(snapshot)
    without.maps.clear()
    without.save(tmp_path / "plain")
    with pytest.raises(ValueError, match=r"'fisher' has no map; .*make one with `textkeep importance probe .* --maps"):
        EWC(str(tmp_path / "plain")).start(model)
    config = LlamaConfig(
        vocab_size=320, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2
    )
    snapshot_of(LlamaForCausalLM(config), tmp_path / "other")
    with pytest.raises(ValueError, match=r"is of another model: 'model\.layers\.0\..*' is \(16, 16\) there"):
        EWC(str(tmp_path / "other")).start(model)
    config.num_hidden_layers, config.hidden_size, config.intermediate_size = 3, 32, 64
    config.num_attention_heads, config.num_key_value_heads, config.head_dim = 4, 2, 8
    snapshot_of(LlamaForCausalLM(config), tmp_path / "deeper")
    with pytest.raises(ValueError, match=r"is of another model: the LLM has no weight 'model\.layers\.2"):
        L2SP(snapshot=str(tmp_path / "deeper")).start(model)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: EWC("x", estimator="taylor"), r"EWC\.estimator: fisher or fisher_sampled is allowed, got 'taylor'"),
        (lambda: L2SP(parameters="some"), r"L2SP\.parameters: decoder or all is allowed, got 'some'"),
        (lambda: L2SP(estimator="signed_taylor"), r"L2SP\.estimator: taylor, .* are allowed, got 'signed_taylor'"),
        (lambda: EWC("x", weight=-1.0), r"EWC: weight is -1\.0, but must be positive"),
    ],
)
def test_wrong_options_are_refused(made: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        made()
