"""Somebody's audio LLM by its name: asked by voice and measured, as transformers computes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from transformers import AutoProcessor

from tests.support.tiny_audio_llms import class_of, write_tiny_audio_llm
from textkeep.datamodules import Example
from textkeep.foundation.errors import UserError
from textkeep.importance import probe
from textkeep.inference import load

FAMILIES = ("qwen2_audio", "granite_speech")
SCALED = {"granite_speech": 8.0}
"""By how much the logits of an audio LLM are larger: it leaves its text LLM's ``logits_scaling`` out."""
INSTRUCTION = {"type": "text", "text": "\nPlease directly answer the questions in the user's speech."}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def folder(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_audio_llm(family, tmp_path_factory.mktemp(family))


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Example:
    clip = tmp_path_factory.mktemp("clips") / "peru.wav"
    noise = 0.1 * torch.randn(20000, generator=torch.Generator().manual_seed(0))
    soundfile.write(clip, noise.numpy(), 16000)
    return Example("peru", "What is the capital of Peru?", ("Lima",), "Lima", clip)


def as_transformers_asks(family: str, folder: Path, clip: Path, answer: str) -> tuple[Any, dict[str, Any]]:
    """The audio LLM, and what its own processor makes of the clip in its own words."""
    processor = AutoProcessor.from_pretrained(folder)
    turn = [{"role": "user", "content": [{"type": "audio", "audio": "clip.wav"}, INSTRUCTION]}]
    text = processor.tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True) + answer
    sound = soundfile.read(clip, dtype="float32")[0]
    return class_of(family).from_pretrained(folder).eval(), processor(text=[text], audio=[sound], return_tensors="pt")


def test_it_hears_as_transformers_does(family: str, folder: Path, spoken: Example) -> None:
    model, clip = load(folder, "cpu"), spoken.audio
    assert isinstance(clip, Path)
    assert model.origin.audio_llm
    assert not model.origin.deaf
    whole, inputs = as_transformers_asks(family, folder, clip, "Lima<|im_end|>")
    tokens = model.front_end.tokenizer("Lima<|im_end|>", add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        read = (whole(**inputs).logits[0] / SCALED.get(family, 1)).double().log_softmax(-1)
    wanted = -float(read[-1 - len(tokens) : -1][range(len(tokens)), tokens].mean())
    np.testing.assert_allclose(model.losses([spoken], "speech"), [wanted], rtol=1e-5)
    whole, inputs = as_transformers_asks(family, folder, clip, "")
    end = {"eos_token_id": [2], "pad_token_id": model.front_end.tokenizer.pad_token_id, "do_sample": False}
    ids = whole.generate(**inputs, max_new_tokens=6, **end)[0, inputs["input_ids"].shape[1] :]
    said = model.front_end.tokenizer.decode(ids, skip_special_tokens=True).strip()
    assert model.ask(audio=clip, max_new_tokens=6) == said


def test_importance_for_speech_is_of_the_text_llm_on_what_was_heard(folder: Path, spoken: Example) -> None:
    model = load(folder, "cpu")
    found = model.probe([spoken], "speech", "taylor")
    llm = model.llm.requires_grad_(True)
    (batch,) = model.inputs([spoken], "speech")
    logits = llm(inputs_embeds=batch["inputs_embeds"], attention_mask=batch["attention_mask"]).logits
    torch.nn.functional.cross_entropy(logits[0, :-1], batch["labels"][0, 1:]).backward()
    for name, score in found.matrices("taylor").items():
        weight = llm.get_parameter(name)
        assert score == pytest.approx(float((weight * weight.grad).detach().abs().sum()), rel=1e-4), name
    same = probe(model.llm, model.inputs([spoken], "text"), "taylor").matrices("taylor")
    assert same.keys() == found.matrices("taylor").keys()
    assert any(same[name] != pytest.approx(score, rel=1e-3) for name, score in found.matrices("taylor").items())


def test_its_own_type_is_kept(folder: Path, spoken: Example) -> None:
    model = load(folder, "cpu", "bfloat16")
    assert {p.dtype for p in model.llm.parameters()} == {torch.bfloat16}
    assert torch.get_default_dtype() == torch.float32
    assert np.isfinite(model.losses([spoken], "speech")).all()


def test_why_one_cannot_listen_is_told(tmp_path: Path, spoken: Example) -> None:
    """Its text is read all the same."""
    model = load(write_tiny_audio_llm("voxtral", tmp_path), "cpu")
    assert np.isfinite(model.losses([spoken])).all()
    with pytest.raises(UserError, match=r"cannot listen: Can't load feature extractor for .*; allowed: text$"):
        model.losses([spoken], "speech")
