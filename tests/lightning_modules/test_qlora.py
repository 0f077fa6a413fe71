"""QLoRA: refused where it cannot run; the code path with bitsandbytes on the CPU, where that is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from tests.support.lora_models import build, wake
from tests.support.speech_batches import make_batch
from textkeep.lightning_modules import LoRA, PiSSA, QLoRA, SpeechTurns
from textkeep.lightning_modules.llm.lora_layers import lora_layers
from textkeep.lightning_modules.tuning import qlora


def pretend(monkeypatch: pytest.MonkeyPatch, cuda: bool, library: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(qlora, "find_spec", lambda name: object() if library else None)


@pytest.mark.parametrize(
    ("cuda", "library", "options", "message"),
    [
        (True, False, {}, r"needs bitsandbytes: pip install 'textkeep\[qlora\]'"),
        (False, True, {}, "needs a CUDA device, and there is none here"),
        (True, True, {"start": PiSSA()}, "PiSSA begins with a part of the weight, which four bits have rounded"),
    ],
)
def test_it_is_refused_where_it_cannot_run(
    monkeypatch: pytest.MonkeyPatch, cuda: bool, library: bool, options: dict[str, Any], message: str
) -> None:
    pretend(monkeypatch, cuda, library)
    with pytest.raises(ValueError, match=message):
        QLoRA(**options)


def test_four_bits_are_asked_for_as_documented(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, True, True)
    config = QLoRA(r=4).loading_options()["quantization_config"]
    assert (config.load_in_4bit, config.bnb_4bit_quant_type, config.bnb_4bit_use_double_quant) == (True, "nf4", True)
    assert config.bnb_4bit_compute_dtype is torch.bfloat16
    assert not QLoRA().mergeable
    assert LoRA().loading_options() == {}


@pytest.fixture
def wide_llm_dir(tiny_llm_dir: Path, tmp_path: Path) -> Path:
    """Rows of at least 64 weights: bitsandbytes packs blocks of so many."""
    config = AutoConfig.from_pretrained(tiny_llm_dir)
    config.hidden_size, config.intermediate_size, config.head_dim = 64, 128, 16
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "wide")
    AutoTokenizer.from_pretrained(tiny_llm_dir).save_pretrained(tmp_path / "wide")
    return tmp_path / "wide"


def test_it_learns_over_four_bit_weights(
    monkeypatch: pytest.MonkeyPatch, wide_llm_dir: Path, tiny_whisper_dir: Path
) -> None:
    pytest.importorskip("bitsandbytes")
    with monkeypatch.context() as patch:
        pretend(patch, True, True)
        tunings = [QLoRA(r=4, gate=SpeechTurns()) for _ in range(2)]
    model, again = (build(tuning, wide_llm_dir, tiny_whisper_dir) for tuning in tunings)
    layers = lora_layers(model.llm)
    assert len(layers) == 14
    assert {layer.get_base_layer().weight.dtype for layer in layers.values()} == {torch.uint8}
    ids = torch.tensor([[5, 6, 7]])
    start = model.llm(ids).logits
    wake(model).train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05)
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = model.answer_losses(make_batch(model, [40, None, 73]))[0].sum()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    model.eval()
    assert torch.equal(model.llm(ids).logits, start)  # the gate is shut
    assert not model.reference.needs_copy
    checkpoint: dict[str, Any] = {"state_dict": dict(model.state_dict())}
    model.on_save_checkpoint(checkpoint)
    assert all(name.startswith("adaptor.") or ".lora_" in name for name in checkpoint["state_dict"])
    again.on_load_checkpoint(checkpoint)
    again.load_state_dict(checkpoint["state_dict"], strict=False)
    batch = make_batch(model, [40])
    # Not bit for bit: on a CPU bitsandbytes packs the weights anew, with other rounding, once it has been used.
    torch.testing.assert_close(model.answer_losses(batch)[0], again.answer_losses(batch)[0], rtol=1e-3, atol=1e-3)
