"""Prompt and answer are the chat template's own ids, in the layouts and tokenizer builds of well-known LLMs."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache
from itertools import product
from typing import Any

import pytest
import torch
from tokenizers import AddedToken

from textkeep.datamodules import AudioArray, ChatPrompt, Collator, Example, RowReader, View
from textkeep.datamodules.batches.lengths import LengthEstimator
from textkeep.datamodules.batches.pieces import PieceTokenizer
from textkeep.datamodules.batches.prompts import SPEECH_INSTRUCTION
from textkeep.datamodules.sources.bad_examples import BadExamples

from .conftest import EnergyFrontEnd, tone
from .layouts import LAYOUTS, Layout

QUESTIONS = ["What is the capital of France?", " two  ", "1 + 1 = ?", "\u4f60\u597d", "a <b> c"]
TARGETS = ["Paris", "Paris is it.\n\nYes.", "42", "\u4f60\u597d", "\U0001f389 ok", "'tis", "{{ x }}", "[x]"]
EDGES = [" Paris", "\nParis", "\n\n 5", "Paris \n", "\t", "<b>Paris</b>", "a <|b|>\n"]
"""Targets with ends that a template may strip, or that may merge with what stands beside them."""


@cache
def tokenizer_of(name: str) -> Any:
    return LAYOUTS[name].tokenizer()


def own_ids(tokenizer: Any, layout: Layout, *turns: tuple[str, str | None], generation: bool = False) -> list[int]:
    """What transformers makes of the conversation."""
    messages = [{"role": role, "content": text} for role, text in turns if text is not None]
    ids = tokenizer.apply_chat_template(
        messages, add_generation_prompt=generation, tokenize=True, return_dict=False, **layout.options
    )
    return list(ids)


def shared(one: list[int], other: list[int]) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


@pytest.mark.parametrize("name", LAYOUTS)
def test_prompt_and_answer_are_the_templates_own_ids(name: str) -> None:
    layout, tokenizer = LAYOUTS[name], tokenizer_of(name)
    prompt = ChatPrompt(tokenizer, template_options=layout.options)
    end = tokenizer.convert_tokens_to_ids(layout.end)
    assert prompt.end_id == end
    for system, question, target in product([None, "Be brief."][: 1 + layout.system], QUESTIONS, TARGETS + EDGES):
        asked = [("system", system), ("user", question)]
        whole = own_ids(tokenizer, layout, *asked, ("assistant", target))
        ids, start, _ = prompt.conversation(question, target, system)
        following = whole if layout.prints_end else [*whole, end]
        assert ids == following[: len(ids)], (system, question, target)
        assert ids[-1] == end
        assert end not in ids[start:-1]
        said = prompt.text(question, system)
        if not layout.opens_thought:
            assert said == own_ids(tokenizer, layout, *asked, generation=True)
        assert start == shared(said, ids)  # all that the prompt does not say is learned
        learned = tokenizer.decode(ids[start:-1])
        assert target.strip() in learned or "<unk>" in learned or "\ufffd" in learned
        if target in TARGETS and "\ufffd" not in learned and "unigram" not in name:
            assert learned.strip() == (layout.lead + target).strip()  # and nothing else


@pytest.mark.parametrize("name", LAYOUTS)
def test_both_sides_of_the_audio_are_those_of_one_special_token(name: str) -> None:
    layout, tokenizer = LAYOUTS[name], tokenizer_of(name)
    with_audio = copy.deepcopy(tokenizer)
    with_audio.add_special_tokens(
        {"additional_special_tokens": [AddedToken("<|AUDIO|>", special=True, normalized=False)]}
    )
    audio = with_audio.convert_tokens_to_ids("<|AUDIO|>")
    end = tokenizer.convert_tokens_to_ids(layout.end)
    for instruction, system in product(
        [SPEECH_INSTRUCTION, "", " Answer.", "\n\n", "5"], [None, "Be brief."][: 1 + layout.system]
    ):
        prompt = ChatPrompt(tokenizer, instruction, template_options=layout.options)
        around = prompt.speech(system)
        asked = [("system", system), ("user", f"<|AUDIO|>{instruction}")]
        if not layout.opens_thought:
            assert [*around.before, audio, *around.after] == own_ids(with_audio, layout, *asked, generation=True)
        for target in TARGETS + EDGES:
            whole = own_ids(with_audio, layout, *asked, ("assistant", target))
            ids, start, _ = prompt.spoken_conversation(target, system)
            ours = [*around.before, audio, *ids]
            assert ours == (whole if layout.prints_end else [*whole, end])[: len(ours)], (instruction, system, target)
            assert ids[-1] == end
            assert start == shared(around.after, ids)


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_same_tokens_are_learned_in_writing_and_by_voice(name: str) -> None:
    prompt = ChatPrompt(tokenizer_of(name), template_options=LAYOUTS[name].options)
    for question, target in product(QUESTIONS, TARGETS + EDGES):
        written, spoken = prompt.conversation(question, target), prompt.spoken_conversation(target)
        assert written.ids[written.answer :] == spoken.ids[spoken.answer :], (question, target)
        assert target not in TARGETS or prompt.answer(target) == written.ids[written.answer :]


@pytest.mark.parametrize("name", ["smollm2", "tinyllama", "mistral-3", "phi-3", "qwen3", "glm-4"])
def test_rows_and_estimates_hold_what_the_template_prints(name: str) -> None:
    layout, tokenizer = LAYOUTS[name], tokenizer_of(name)
    front_end, prompt = EnergyFrontEnd(tokenizer), ChatPrompt(tokenizer, template_options=layout.options)
    reader, collator = RowReader(front_end), Collator(front_end, prompt)
    audio = AudioArray(torch.from_numpy(tone(0.5)), 16000)
    examples = [Example(f"{i}", "What?", (target,), target, audio) for i, target in enumerate(TARGETS + EDGES)]
    examples.append(Example("plain", "", ("x",), "The capital is Paris.", plain=True))
    views = [View(e, m) for e in examples for m in ("text", "speech") if not (e.plain and m == "speech")]  # type: ignore
    batch = collator([reader.read(view) for view in views])
    assert batch.end_id == prompt.end_id
    kept, lengths = LengthEstimator(front_end, prompt, 30.0).measure(views, BadExamples("raise"))
    assert kept == views
    for row, (view, length) in enumerate(zip(views, lengths, strict=True)):
        real = int(batch.attention_mask[row].sum())
        assert real <= length.own <= real + 1
        labels = batch.labels[row][batch.labels[row] != -100].tolist()
        if not view.example.plain:
            ids, start, _ = prompt.conversation("What?", view.example.target)
            assert labels == ids[start:]
            asked = Collator(front_end, prompt, answers=False)([reader.read(view)])
            shown = batch.input_ids[row][: real - len(labels)].tolist()
            assert asked.input_ids[0].tolist()[: len(shown)] == shown
            assert asked.end_id == prompt.end_id


def test_a_token_that_takes_white_space_before_it_begins_no_piece() -> None:
    layout = LAYOUTS["phi-4"]
    spaced = layout.template.replace("m.role }}<|im_sep|>", "m.role }} \n<|im_sep|>")
    tokenizer = replace(layout, template=spaced, specials=[s for s in layout.specials if s != "<|im_sep|>"]).tokenizer()
    sep = AddedToken("<|im_sep|>", lstrip=True, special=True, normalized=False)
    tokenizer.add_special_tokens({"additional_special_tokens": [sep]})
    prompt = ChatPrompt(tokenizer)
    assert prompt.conversation("What?", "Paris").ids == own_ids(
        tokenizer, layout, ("user", "What?"), ("assistant", "Paris")
    )
    assert prompt.tokenize._begin is not None
    assert "sep" not in prompt.tokenize._begin.pattern


def test_a_token_within_a_longer_one_begins_no_piece() -> None:
    tokenizer = LAYOUTS["smollm2"].tokenizer()
    tokenizer.add_tokens([AddedToken("?<|im_end|>", normalized=False)])
    prompt = ChatPrompt(tokenizer)
    assert prompt.text("What?") == own_ids(tokenizer, LAYOUTS["smollm2"], ("user", "What?"), generation=True)
    assert tokenizer.convert_tokens_to_ids("?<|im_end|>") in prompt.text("What?")
    assert prompt.tokenize._begin is not None


class CountsAll:
    """A tokenizer whose ids depend on the whole text."""

    def __init__(self) -> None:
        self.added_tokens_decoder = {0: AddedToken("<|x|>", special=True, normalized=False)}

    def __call__(self, texts: list[str], **_: Any) -> dict[str, list[list[int]]]:
        return {"input_ids": [[len(text)] for text in texts]}


def test_a_tokenizer_with_dependent_pieces_gets_its_texts_whole() -> None:
    assert PieceTokenizer(CountsAll(), "<|x|>a<|x|>b")(["a<|x|>b"]) == [[7]]  # type: ignore[arg-type]


def test_memory_of_pieces_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    from textkeep.datamodules.batches import pieces

    monkeypatch.setattr(pieces, "_KEPT", 8)
    tokenizer = tokenizer_of("smollm2")
    prompt, fresh = ChatPrompt(tokenizer), ChatPrompt(tokenizer)
    for i in range(60):
        assert prompt.text(f"What {i}?") == own_ids(
            tokenizer, LAYOUTS["smollm2"], ("user", f"What {i}?"), generation=True
        )
    assert len(prompt.tokenize._memory) <= 16
    many = [prompt.template.prompt(f"Why {i}?", None) for i in range(40)]
    assert prompt.tokenize(many) == [fresh.text(f"Why {i}?") for i in range(40)]
    assert len(prompt.tokenize._memory) <= 16
