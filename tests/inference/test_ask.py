"""``LoadedModel.ask``: every form of a question, and the answers that the run itself recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from tests.support.measured_runs import STEPS, MeasuredRun
from textkeep.datamodules import AudioArray, Example
from textkeep.datamodules.sources.bad_examples import BadExampleError
from textkeep.evaluation import read_predictions
from textkeep.foundation.errors import UserError
from textkeep.inference import LoadedModel, load, read_examples


@pytest.fixture(scope="module")
def model(measured_run: MeasuredRun) -> LoadedModel:
    return load(measured_run("full"), "cpu")


@pytest.fixture
def clips(tiny_manifest: Path) -> list[Path]:
    return [tiny_manifest.parent / json.loads(line)["audio"] for line in tiny_manifest.read_text().splitlines()]


@pytest.mark.parametrize("kind", ["full", "lora", "turns", "positions"])
def test_answers_are_those_that_the_run_recorded(kind: str, measured_run: MeasuredRun, tiny_manifest: Path) -> None:
    run = measured_run(kind)
    records = {(r.id, r.modality): r for r in read_predictions(run / f"evaluation/step={STEPS:06d}.jsonl")}
    examples = read_examples(str(tiny_manifest))
    model = load(run, "cpu")
    written = model.ask([example.question for example in examples])
    spoken = model.ask(audio=[example.audio for example in examples])  # type: ignore[arg-type, misc]
    assert written == [records[example.id, "text"].prediction for example in examples]
    assert spoken == [records[example.id, "speech"].prediction for example in examples]
    assert written != spoken
    assert len(set(written)) > 2  # what is asked matters
    for modality in ("text", "speech"):
        losses = [records[example.id, modality].loss for example in examples]
        assert model.losses(examples, modality) == pytest.approx(losses, rel=1e-5)  # type: ignore[arg-type]


def test_one_is_as_in_a_batch(model: LoadedModel, clips: list[Path], tiny_manifest: Path) -> None:
    alone = [model.ask(audio=clip) for clip in clips]
    assert all(isinstance(answer, str) for answer in alone)
    assert model.ask(audio=clips, batch_size=6) == alone
    assert model.ask(audio=tuple(clips), batch_size=4) == alone
    texts = [example.question for example in read_examples(str(tiny_manifest))]
    assert [model.ask(text) for text in texts] == model.ask(texts, batch_size=6)
    assert model.ask([]) == []
    assert model.ask(texts[:1]) == [model.ask(texts[0])]


def heard(model: LoadedModel, audio: Path | AudioArray) -> float:
    """The loss on a fixed answer: a finer measure of what was heard than the answer."""
    return float(model.losses([Example("x", "", ("Lima",), "Lima", audio)], "speech")[0])


def forms(samples: np.ndarray) -> list[Any]:
    return [samples, samples[::-1][::-1], torch.from_numpy(samples), torch.from_numpy(samples).requires_grad_()]


@pytest.mark.parametrize("rate", [16000, 8000, 44100])
@pytest.mark.parametrize("channels", [1, 2])
def test_arrays_are_heard_as_files(model: LoadedModel, tmp_path: Path, rate: int, channels: int) -> None:
    samples = 0.1 * np.random.default_rng(rate).standard_normal((rate // 2, channels)).astype(np.float32)
    samples = samples[:, 0] if channels == 1 else samples
    soundfile.write(tmp_path / "clip.wav", samples, rate, subtype="FLOAT")
    expected = model.ask(audio=tmp_path / "clip.wav")
    assert model.ask(audio=str(tmp_path / "clip.wav")) == expected
    for form in forms(samples):
        assert model.ask(audio=form, sampling_rate=rate) == expected
    assert model.ask(audio=forms(samples), sampling_rate=rate) == [expected] * 4
    file, array = tmp_path / "clip.wav", AudioArray(torch.from_numpy(samples), rate)
    assert heard(model, file) == pytest.approx(heard(model, array), rel=1e-6)
    if rate != 16000:  # the rate matters
        assert heard(model, file) != pytest.approx(heard(model, AudioArray(array.waveform, 16000)), rel=1e-6)


def test_sixteen_bits_are_heard_as_the_file_that_holds_them(model: LoadedModel, tmp_path: Path) -> None:
    samples = (3000 * np.random.default_rng(0).standard_normal(9000)).astype(np.int16)
    soundfile.write(tmp_path / "clip.wav", samples, 16000, subtype="PCM_16")
    assert model.ask(audio=samples) == model.ask(audio=tmp_path / "clip.wav")
    array = AudioArray(torch.from_numpy(samples), 16000)
    assert heard(model, array) == pytest.approx(heard(model, tmp_path / "clip.wav"), rel=1e-6)


def test_a_text_with_a_clip_is_the_instruction(model: LoadedModel, clips: list[Path]) -> None:
    instruction = "\nPlease directly answer the questions in the user's speech."
    assert model.ask(instruction, clips[0]) == model.ask(audio=clips[0])  # what the run was trained with
    (batch,) = model.batches(
        read_examples([Example("x", "", ("a",), "a", clips[0])], "speech"),
        "speech",
        1,
        answers=False,
        prompts={"speech_instruction": " Repeat it."},
    )
    tail = model.front_end.tokenizer.decode(batch.input_ids[0][~batch.audio_mask[0]])
    assert tail == "<|im_start|>user\n Repeat it.<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ({}, UserError, "nothing was asked; allowed: text, audio, or audio with a text"),
        ({"text": " "}, UserError, "an empty text; allowed: a question"),
        ({"text": ["a"], "audio": ["b.wav"]}, UserError, "allowed: one instruction for all clips"),
        ({"audio": "none.wav"}, UserError, "none.wav does not exist or is not a file; allowed: a sound file"),
        ({"audio": np.zeros((2, 9000), np.float32)}, BadExampleError, r"not \(samples,\) or \(samples, channels\)"),
        ({"audio": np.zeros(0, np.float32)}, BadExampleError, "it has no samples"),
        ({"audio": np.array(["a"])}, UserError, "clip 0 is not a sound"),
        ({"audio": np.zeros(16000 * 31, np.float32)}, BadExampleError, "allowed: at most max_seconds = 30"),
        ({"audio": np.zeros(9, np.float32), "sampling_rate": 0}, BadExampleError, "its sampling rate is 0"),
    ],
)
def test_what_cannot_be_asked(model: LoadedModel, asked: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        model.ask(**asked)
    assert "\n" not in str(caught.value)


def test_a_text_llm_answers_but_cannot_listen(talkative_llm_dir: Path, clips: list[Path]) -> None:
    from transformers import AutoModelForCausalLM

    model = load(talkative_llm_dir, "cpu", dtype=torch.float32)
    llm = AutoModelForCausalLM.from_pretrained(talkative_llm_dir).eval()
    tokenizer = model.front_end.tokenizer
    prompt = "<|im_start|>user\nWhat is the capital of Peru?<|im_end|>\n<|im_start|>assistant\n"
    ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt").input_ids
    new = llm.generate(ids, do_sample=False, max_new_tokens=5)[0, ids.shape[1] :]
    expected = tokenizer.decode(new, skip_special_tokens=True).strip()
    assert model.ask("What is the capital of Peru?", max_new_tokens=5) == expected
    with pytest.raises(UserError, match="cannot listen"):
        model.ask(audio=clips[0])
