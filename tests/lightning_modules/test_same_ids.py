"""Two models are measured on the same ids only where these are the same text for both."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.tiny_audio_llms import FAMILIES, tiny_tokenizer
from textkeep.lightning_modules.llm.vocabulary import check_same_ids

TEXTS = ["What is the capital of Peru?", "Lima", ""]
NAMES = ("base", "audio")


@pytest.fixture
def tokenizer() -> Any:
    return tiny_tokenizer(FAMILIES["glmasr"])


def test_a_tokenizer_agrees_with_itself_and_with_one_that_has_more_tokens(tokenizer: Any) -> None:
    more = tiny_tokenizer(FAMILIES["glmasr"])
    more.add_tokens(["<|more|>"], special_tokens=True)
    check_same_ids(tokenizer, more, TEXTS, range(len(tokenizer)), NAMES)


def test_another_text_is_named_with_both_ids(tokenizer: Any) -> None:
    other = tiny_tokenizer(FAMILIES["qwen3_asr"])  # has more tokens before those of text
    first, second = (found("What", add_special_tokens=False)["input_ids"][0] for found in (tokenizer, other))
    said = (
        rf"base and audio write the same text with other ids \('\w+' is \[{first}\] in the first, .* has \[{second}\]\)"
    )
    with pytest.raises(ValueError, match=said):
        check_same_ids(tokenizer, other, TEXTS, (), NAMES)


def test_a_token_of_the_template_that_is_another_one_is_named(tokenizer: Any) -> None:
    """The template's own tokens stand in no text that is asked."""
    other = tiny_tokenizer(FAMILIES["granite_speech"])  # one special token of its own too, at the same place
    place = tokenizer.convert_tokens_to_ids("<|pad|>")
    check_same_ids(tokenizer, other, TEXTS, [place - 1, place + 1], NAMES)
    said = (
        rf"base and audio have other tokens \(id {place} is '<\|pad\|>' in the first and '<\|audio\|>' in the second\)"
    )
    with pytest.raises(ValueError, match=said):
        check_same_ids(tokenizer, other, TEXTS, [place], NAMES)


def test_a_text_that_goes_on_in_one_of_them_is_named(tokenizer: Any) -> None:
    other = tiny_tokenizer(FAMILIES["glmasr"])
    other.add_tokens(["Lima"])
    with pytest.raises(ValueError, match="write the same text with other ids"):
        check_same_ids(tokenizer, other, ["Lima"], (), NAMES)
