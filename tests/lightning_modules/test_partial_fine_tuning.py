"""What a partial choice trains, and which choices are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch import nn

from textkeep.lightning_modules import ConcatMLP, ImportanceRates, ListedRates, PartialFineTuning, SpeechLLM
from textkeep.lightning_modules.ears.encoders import WhisperEncoder
from textkeep.lightning_modules.tuning.partial_fine_tuning import layer_indices


def built(llm: Path, whisper: Path, **options: Any) -> SpeechLLM:
    model = SpeechLLM(str(llm), WhisperEncoder(str(whisper)), ConcatMLP(5, 16), PartialFineTuning(**options))
    model.configure_model()
    return model


def moving(model: SpeechLLM) -> set[str]:
    return {name for name, parameter in model.llm.named_parameters() if parameter.requires_grad}


def groups(model: SpeechLLM) -> list[str]:
    found = model.tuning.parameter_groups(model.llm, model.encoder, model.adaptor)
    seen = [id(p) for group in found for p in group.parameters]
    assert sorted(seen) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    return [group.name for group in found]


def test_layers(tiny_llm_dir: Path, tiny_whisper_dir: Path) -> None:
    model = built(tiny_llm_dir, tiny_whisper_dir, layers="1-")
    assert moving(model) == {n for n, _ in model.llm.named_parameters() if n.startswith("model.layers.1.")}
    assert groups(model) == ["adaptor", "llm.01"]
    assert not any(p.requires_grad for p in model.encoder.parameters())


def test_patterns_within_layers(tiny_llm_dir: Path, tiny_whisper_dir: Path) -> None:
    model = built(tiny_llm_dir, tiny_whisper_dir, layers=0, patterns=["*.mlp.*", "*q_proj.weight"])
    kinds = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj", "self_attn.q_proj")
    assert moving(model) == {f"model.layers.0.{kind}.weight" for kind in kinds}


def test_a_tied_head_trains_with_the_embeddings(
    tiny_llm_dir: Path, tiny_whisper_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr("textkeep.lightning_modules.tuning.partial_fine_tuning.rank_zero_info", told.append)
    model = built(tiny_llm_dir, tiny_whisper_dir, patterns=["lm_head.weight", "model.norm.weight"])
    assert moving(model) == {"model.embed_tokens.weight", "model.norm.weight"}
    assert groups(model) == ["adaptor", "llm.other"]
    assert told == ["model.tuning: model.embed_tokens.weight and lm_head.weight are one weight and train together"]


def test_rates_of_the_layers_that_train(tiny_llm_dir: Path, tiny_whisper_dir: Path) -> None:
    model = built(tiny_llm_dir, tiny_whisper_dir, layers="1", rates=ListedRates([0.25, 0.5]))
    found = model.tuning.parameter_groups(model.llm, model.encoder, model.adaptor)
    assert {group.name: group.multiplier for group in found} == {"adaptor": 1.0, "llm.01": 0.5}
    with pytest.raises(ValueError, match="of decoder layers, but none of these trains"):
        built(tiny_llm_dir, tiny_whisper_dir, patterns=["model.norm.*"], rates=ImportanceRates(probe="heldout_text"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [("8", [8]), ("8-11", [8, 9, 10, 11]), ("27-", [27, 28, 29]), ("0-1, 29", [0, 1, 29]), ("3,1-3", [1, 2, 3])],
)
def test_layer_ranges(text: str, expected: list[int]) -> None:
    assert layer_indices(text, 30) == expected


@pytest.mark.parametrize("text", ["30", "8-30", "30-", "0,31"])
def test_layers_out_of_range(text: str) -> None:
    with pytest.raises(ValueError, match=f"layers '{text}' are out of range: the LLM has decoder layers 0-29"):
        layer_indices(text, 30)


@pytest.mark.parametrize("text", ["", "a", "8:15", "15-8", "-3", "1 2"])
def test_unreadable_layers_are_refused_at_construction(text: str) -> None:
    with pytest.raises(ValueError, match="cannot be read; allowed: 8, 8-15"):
        PartialFineTuning(layers=text)


@pytest.mark.parametrize("options", [{}, {"patterns": []}])
def test_nothing_chosen_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="say what trains, by layers or by patterns"):
        PartialFineTuning(**options)


def test_a_pattern_without_a_match_is_named(tiny_llm_dir: Path, tiny_whisper_dir: Path) -> None:
    with pytest.raises(ValueError, match=r"'\*\.ffn\.\*' matches no weight of the LLM; it has such as model\.embed"):
        built(tiny_llm_dir, tiny_whisper_dir, patterns=["*.mlp.*", "*.ffn.*"])
    with pytest.raises(ValueError, match=r"matches no weight of the LLM in the layers 0-1; it has such as model"):
        built(tiny_llm_dir, tiny_whisper_dir, layers="0-1", patterns=["lm_head.*"])


def test_frozen_layers_get_no_gradient(tiny_llm_dir: Path, tiny_whisper_dir: Path) -> None:
    from tests.support.speech_batches import make_batch

    model = built(tiny_llm_dir, tiny_whisper_dir, layers="1")
    model.answer_losses(make_batch(model, [40, None]))[0].sum().backward()
    has_gradient = {name for name, parameter in model.llm.named_parameters() if parameter.grad is not None}
    assert has_gradient == moving(model)
    adaptor: nn.Module = model.adaptor
    assert all(parameter.grad is not None for parameter in adaptor.parameters())
