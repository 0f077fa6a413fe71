"""Texts whose tokens the LLM has no embedding for, and questions without an answer."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch

from textkeep.datamodules import AudioArray, ChatPrompt, Collator, Example, View
from textkeep.datamodules.batches.lengths import LengthEstimator
from textkeep.datamodules.batches.rows import RowReader
from textkeep.datamodules.batches.view_dataset import Pick, Unread, ViewDataset
from textkeep.datamodules.sources.bad_examples import BadExampleError, BadExamples

from .conftest import EnergyFrontEnd, tone


@pytest.fixture
def narrow(tiny_tokenizer: Any) -> EnergyFrontEnd:
    """A front end whose LLM lacks the tokenizer's last token."""
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.add_tokens(["<image>"])
    return EnergyFrontEnd(tokenizer, vocabulary=tokenizer.convert_tokens_to_ids("<image>"))


def examples() -> list[Example]:
    audio = AudioArray(torch.from_numpy(tone(0.5)), 16000)
    return [
        Example("question", "An <image>?", ("no",), "no", location="m.jsonl:1"),
        Example("target", "Hm?", ("x",), "an <image>", audio, location="m.jsonl:2"),
        Example("system", "Hm?", ("x",), "x", system="<image>", location="m.jsonl:3"),
        Example("plain", "", (), "<image> <image>", location="m.jsonl:4", plain=True),
        Example("twin", "An <image>?", ("x",), "x", audio, location="m.jsonl:5"),
    ]


def test_a_token_without_an_embedding_is_named_with_its_place(narrow: EnergyFrontEnd) -> None:
    prompt = ChatPrompt(narrow.tokenizer)
    collator, reader = Collator(narrow, prompt, twins=True), RowReader(narrow)
    estimator, skipping = LengthEstimator(narrow, prompt, 30.0), BadExamples("skip")
    for number, example in enumerate(examples(), 1):
        view = View(example, "speech" if example.has("speech") else "text")
        with pytest.raises(BadExampleError, match=rf"^m\.jsonl:{number}: '<image>' is token \d+, and the LLM"):
            collator([reader.read(view)])
        with pytest.raises(BadExampleError, match=rf"^m\.jsonl:{number}: '<image>'"):
            estimator.measure([view], BadExamples("raise"), twins=True)
        found = ViewDataset([view], reader, collator)[Pick(0, 0)]
        assert isinstance(found, Unread)
        assert found.fatal  # no page of traceback from a worker
        with pytest.warns(UserWarning, match="<image>") if number == 1 else nullcontext():
            assert estimator.measure([view], skipping, twins=True) == ([], [])
    assert skipping.counts == {"token without an embedding": 5}
    unloaded = replace(narrow, vocabulary=None)
    assert len(Collator(unloaded, prompt)([RowReader(unloaded).read(View(examples()[0], "text"))])) == 1


def test_a_question_without_an_answer_needs_no_turn_without_text(tiny_tokenizer: Any) -> None:
    tokenizer = copy.deepcopy(tiny_tokenizer)
    refused = "{% if m.role == 'assistant' and not m.content %}{{ raise_exception('empty turn') }}{% endif %}"
    tokenizer.chat_template = tokenizer.chat_template.replace("<|im_start|>{{ m", refused + "<|im_start|>{{ m", 1)
    assert refused in tokenizer.chat_template
    front_end, prompt = EnergyFrontEnd(tokenizer), ChatPrompt(tokenizer)
    example = Example("a", "What?", (), "", AudioArray(torch.from_numpy(tone(0.5)), 16000), location="m.jsonl:1")
    views = [View(example, "text"), View(example, "speech")]
    kept, lengths = LengthEstimator(front_end, prompt, 30.0).measure(views, BadExamples("raise"))
    assert kept == views
    collator, reader = Collator(front_end, prompt, answers=False), RowReader(front_end)
    for view, length in zip(views, lengths, strict=True):
        real = int(collator([reader.read(view)]).attention_mask.sum())
        assert real <= length.own <= real + 1
