"""What strategies and objectives can rely on: penalties, the untouched LLM, multipliers of learning rates."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.support.speech_batches import make_batch
from textkeep.lightning_modules import AdaptorOnly, AnswerCrossEntropy, ConcatMLP, Penalty, SpeechLLM, WhisperEncoder
from textkeep.lightning_modules.contract import SpeechModel
from textkeep.lightning_modules.objectives.loss_terms import LossTerms
from textkeep.lightning_modules.optimization import build_optimizer
from textkeep.lightning_modules.schedule import Schedule
from textkeep.lightning_modules.tuning.tuning import ParameterGroup, llm_groups


class Three(Penalty):
    name = "three"

    def value(self, model: SpeechModel) -> Tensor:
        return torch.tensor(3.0)

    def add_gradient(self, model: SpeechModel) -> None:
        """It has none."""


def test_a_penalty_counts_once_a_step(model: SpeechLLM) -> None:
    batch = make_batch(model.eval(), [40, None, 73])
    alone = LossTerms([AnswerCrossEntropy()]).total(model, batch)
    both = LossTerms([AnswerCrossEntropy(), Three(weight=0.5)]).total(model, batch)
    assert both.tokens == alone.tokens == 9
    assert torch.equal(both.loss, alone.loss)
    assert both.penalty.item() == 1.5
    assert both.mean.item() == pytest.approx((alone.loss / alone.tokens).item() + 1.5, rel=1e-6)
    assert both.values["three"].item() == 3.0


def test_a_penalty_cannot_stand_first(tiny_llm_dir: Path, tiny_whisper_dir: Path) -> None:
    with pytest.raises(ValueError, match="the first must be over tokens"):
        SpeechLLM(str(tiny_llm_dir), WhisperEncoder(str(tiny_whisper_dir)), ConcatMLP(5, 16), objectives=[Three()])


def test_the_reference_is_a_copy_outside_the_module(model: SpeechLLM) -> None:
    names = set(model.state_dict())
    inputs = {"input_ids": torch.tensor([[5, 6, 7]])}
    before = model.llm(**inputs).logits.detach()
    with torch.no_grad():
        model.llm.get_input_embeddings().weight.add_(0.1)
    assert model.reference.needs_copy
    with model.reference.active() as llm:
        assert torch.equal(llm(**inputs).logits, before)
        assert not any(p.requires_grad for p in llm.parameters())
    assert set(model.state_dict()) == names


def test_a_frozen_llm_is_its_own_reference(tiny_llm_dir: Path, tiny_whisper_dir: Path) -> None:
    model = SpeechLLM(str(tiny_llm_dir), WhisperEncoder(str(tiny_whisper_dir)), ConcatMLP(5, 16), AdaptorOnly())
    model.configure_model()
    model.llm.train()
    assert not model.reference.needs_copy
    with model.reference.active() as llm:
        assert llm is model.llm
        assert not llm.training
    assert model.llm.training


def test_multipliers_scale_the_rate_of_their_layer(model: SpeechLLM) -> None:
    groups = [ParameterGroup("adaptor", list(model.adaptor.parameters()), lr=0.5), *llm_groups(model.llm, [0.6, 1.0])]
    made = build_optimizer(lambda g: torch.optim.SGD(g, lr=0.1), groups, [], Schedule("constant"), 10)
    rates = {g["name"]: g["lr"] for g in made["optimizer"].param_groups}
    assert rates == pytest.approx({"adaptor": 0.5, "llm.00": 0.06, "llm.01": 0.1, "llm.other": 0.1})
