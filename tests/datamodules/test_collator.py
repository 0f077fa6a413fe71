from __future__ import annotations

from pathlib import Path

import pytest
import torch

from textkeep.datamodules import AudioArray, Batch, ChatPrompt, Collator, Example, RowReader, View
from textkeep.datamodules.batches.rows import Row
from textkeep.datamodules.sources.bad_examples import BadExampleError

from .conftest import EnergyFrontEnd, tone


def spoken(identity: str, seconds: float, question: str = "What is it?") -> View:
    audio = AudioArray(torch.from_numpy(tone(seconds)), 16000)
    return View(Example(identity, question, ("Paris",), "Paris", audio, location=f"m:{identity}"), "speech")


@pytest.fixture
def views() -> list[View]:
    text = View(Example("t", "What is the capital of France?", ("Paris",), "Paris is it.", location="m:t"), "text")
    return [spoken("a", 0.6), text, spoken("b", 1.25, "Who?")]


def collate(front_end: EnergyFrontEnd, views: list[View], answers: bool = True) -> Batch:
    reader = RowReader(front_end)
    collator = Collator(front_end, ChatPrompt(front_end.tokenizer), answers=answers)
    return collator([reader.read(view) for view in views])


def test_rows_are_prompt_audio_and_answer(front_end: EnergyFrontEnd, views: list[View]) -> None:
    batch = collate(front_end, views)
    prompt, tokenizer = ChatPrompt(front_end.tokenizer), front_end.tokenizer
    pad = tokenizer.pad_token_id
    answer = tokenizer.encode("Paris<|im_end|>", add_special_tokens=False)
    around = prompt.speech()
    row = [*around.before, *[pad] * 6, *around.after, *answer]  # 0.6 s are 6 positions
    width = batch.input_ids.shape[1]
    assert batch.input_ids[0].tolist() == row + [pad] * (width - len(row))
    assert batch.attention_mask[0].tolist() == [1] * len(row) + [0] * (width - len(row))
    assert batch.audio_mask[0].nonzero().flatten().tolist() == list(range(len(around.before), len(around.before) + 6))
    assert batch.labels[0].tolist() == [-100] * (len(row) - len(answer)) + answer + [-100] * (width - len(row))
    assert batch.audio_mask.sum(dim=1).tolist() == [6, 0, 12]
    assert batch.labels[1][batch.labels[1] >= 0].tolist() == prompt.answer("Paris is it.")
    assert (batch.ids, batch.modality) == (["a", "t", "b"], ["speech", "text", "speech"])


def test_clips_stand_in_the_order_of_their_positions(front_end: EnergyFrontEnd, views: list[View]) -> None:
    batch = collate(front_end, views)
    assert batch.features.shape == (2, 2, 125)
    assert batch.features.dtype == torch.float32
    assert batch.feature_lengths.tolist() == [60, 125]
    assert torch.equal(batch.features[0, :, :60], front_end.extract(views[0].example.audio.waveform))  # type: ignore
    assert not batch.features[0, :, 60:].any()
    texts = [front_end.tokenizer.decode(row[row >= 0]) for row in batch.transcripts]
    assert texts == ["What is it?", "Who?"]


def test_prompts_are_left_padded_and_end_with_the_generation_prompt(
    front_end: EnergyFrontEnd, views: list[View]
) -> None:
    batch = collate(front_end, views, answers=False)
    assert (batch.labels == -100).all()
    for ids, mask in zip(batch.input_ids, batch.attention_mask, strict=True):
        assert front_end.tokenizer.decode(ids).endswith("<|im_start|>assistant\n")
        assert mask.tolist() == sorted(mask.tolist())  # zeros first
    full = collate(front_end, views)
    for row in range(3):
        prompt_length = int(batch.attention_mask[row].sum())
        assert batch.input_ids[row, -prompt_length:].tolist() == full.input_ids[row, :prompt_length].tolist()
        assert batch.audio_mask[row, -prompt_length:].tolist() == full.audio_mask[row, :prompt_length].tolist()


def test_text_only_batch_has_no_clips(front_end: EnergyFrontEnd, views: list[View]) -> None:
    batch = collate(front_end, [views[1]])
    assert batch.features.shape == (0, 2, 0)
    assert batch.feature_lengths.shape == (0,)
    assert batch.transcripts.shape[0] == 0
    assert not batch.audio_mask.any()


def test_examples_travel_without_samples(front_end: EnergyFrontEnd, views: list[View], tmp_path: Path) -> None:
    kept = Example("f", "Q?", ("x",), "x", tmp_path / "x.wav")
    batch = collate(front_end, [views[0], View(kept, "text")])
    assert [example.audio for example in batch.examples] == [None, tmp_path / "x.wav"]
    assert batch.examples[0].answers == ("Paris",)


def test_batch_moves_whole(front_end: EnergyFrontEnd, views: list[View]) -> None:
    batch = collate(front_end, views)
    moved = batch.to(torch.device("meta"))
    assert moved.features.device.type == moved.labels.device.type == "meta"
    assert (moved.ids, len(moved)) == (batch.ids, 3)
    assert batch.features.device.type == "cpu"


def test_errors_cross_processes() -> None:
    import pickle

    error = pickle.loads(pickle.dumps(BadExampleError("too long", "m:3", "no")))
    assert (error.reason, error.location, str(error)) == ("too long", "m:3", "m:3: no")


def test_half_precision_converts_features_and_leaves_examples(front_end: EnergyFrontEnd) -> None:
    from lightning.pytorch.plugins import HalfPrecision

    example = Example("a", "What?", ("Paris",), "Paris")
    row = Row(example, "speech", torch.zeros(front_end.feature_dim, 8), front_end.num_positions(8))
    batch = Collator(front_end, ChatPrompt(front_end.tokenizer))([row])
    converted = HalfPrecision("bf16-true").convert_input(batch)
    assert converted.features.dtype == torch.bfloat16
    assert converted.input_ids.dtype == torch.int64
    assert list(converted.examples) == [example]
