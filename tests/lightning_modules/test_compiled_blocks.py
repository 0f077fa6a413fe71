"""Blocks that are compiled for training: the same gradients, and measurements that do not meet them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters
from transformers import AutoModelForCausalLM

from textkeep.cli.main import main
from textkeep.importance import probe
from textkeep.lightning_modules import LoRA, SpeechLLM, SpeechTurns
from textkeep.lightning_modules.ears.adaptors import ConcatMLP
from textkeep.lightning_modules.ears.encoders import WhisperEncoder
from textkeep.lightning_modules.llm.compiled_blocks import CompiledBlocks


def test_they_run_in_training_steps_alone(tiny_config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: Counter[bool] = Counter()

    def counted(forward: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            calls[torch.is_grad_enabled()] += 1
            return forward(*args, **kwargs)

        return call

    monkeypatch.setattr(torch, "compile", counted)
    words = ("--model.compile_blocks", "true", "--trainer.callbacks+", "ImportanceTracker", "--trainer.max_steps", "2")
    probes = '{"text": {"source": "spoken-facts/general", "modality": "text", "examples": 2}}'
    assert main(["fit", "--config", str(tiny_config), *words, "--data.probes", probes]) == 0
    assert calls == {True: 2 * 2}, "steps by blocks; not the validations and measurements of importance"


@pytest.mark.slow
def test_gradients_are_the_same_and_importance_is_to_the_bit(tiny_llm_dir: Path) -> None:
    llm = AutoModelForCausalLM.from_pretrained(tiny_llm_dir).train()
    ids = torch.randint(5, 250, (4, 12), generator=torch.Generator().manual_seed(0))
    batch = {"input_ids": ids, "labels": ids, "attention_mask": torch.ones_like(ids)}

    def gradients() -> list[torch.Tensor]:
        llm.zero_grad()
        llm(**batch, use_cache=False).loss.backward()
        return [parameter.grad.clone() for parameter in llm.parameters()]

    plain, before = gradients(), probe(llm, [batch], ("taylor", "fisher"))
    blocks = CompiledBlocks(llm)
    counters.clear()
    blocks.begin()
    compiled = gradients()
    blocks.end()
    assert counters["stats"]["unique_graphs"] == 1, "one for both blocks"
    after = probe(llm, [batch], ("taylor", "fisher"))
    torch.testing.assert_close(compiled, plain, rtol=1e-4, atol=1e-6)
    for estimator in ("taylor", "fisher"):
        assert after.matrices(estimator) == before.matrices(estimator)


def test_a_gate_is_refused(tiny_llm_dir: Path, tiny_whisper_dir: Path) -> None:
    parts = (WhisperEncoder(str(tiny_whisper_dir)), ConcatMLP(5, 16), LoRA(gate=SpeechTurns()))
    with pytest.raises(ValueError, match=r"model.compile_blocks: .* allowed: LoRA without gate"):
        SpeechLLM(str(tiny_llm_dir), *parts, compile_blocks=True)
