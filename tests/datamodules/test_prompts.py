from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from textkeep.datamodules.prompts import SPEECH_INSTRUCTION, ChatPrompt

QUESTIONS = ["What is the capital of France?", "2 + 2 = ?", "Wie heißt du?", "\u4f60\u597d", "a  b", "'tis", "5"]


@pytest.fixture(params=["tiny", "smollm2"])
def tokenizer(request: pytest.FixtureRequest, tiny_tokenizer: Any) -> Any:
    """The tiny tokenizer, and SmolLM2's where it was fetched (``textkeep assets``)."""
    if request.param == "tiny":
        return tiny_tokenizer
    folder = Path(os.environ.get("TEXTKEEP_HOME", "")) / "models" / "smollm2-135m-instruct"
    if "TEXTKEEP_HOME" not in os.environ or not folder.is_dir():
        pytest.skip("SmolLM2 is not here")
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def chat(tokenizer: Any, *turns: tuple[str, str], **options: Any) -> Any:
    messages = [{"role": role, "content": content} for role, content in turns]
    return tokenizer.apply_chat_template(messages, return_dict=False, **options)


@pytest.mark.parametrize("system", [None, "Be brief."])
@pytest.mark.parametrize("question", QUESTIONS)
def test_text_prompts_are_the_templates_own_ids(tokenizer: Any, question: str, system: str | None) -> None:
    turns = [("system", system)] if system else []
    expected = chat(tokenizer, *turns, ("user", question), add_generation_prompt=True)
    assert ChatPrompt(tokenizer, system=system).text(question) == expected
    assert ChatPrompt(tokenizer).text(question, system) == expected


@pytest.mark.parametrize("answer", ["Paris", "Paris is the capital.", "42", "ja, \u4f60\u597d"])
def test_prompt_and_answer_are_the_templates_conversation(tokenizer: Any, answer: str) -> None:
    prompt = ChatPrompt(tokenizer)
    whole = chat(tokenizer, ("user", "What?"), ("assistant", answer))
    ours = prompt.text("What?") + prompt.answer(answer)
    assert ours == whole[: len(ours)]
    assert ours[-1] == tokenizer.eos_token_id  # the end of the turn is learned
    assert tokenizer.decode(whole[len(ours) :]).strip() == ""  # only a line feed follows it in the template


def test_audio_stands_first_in_the_user_turn(tokenizer: Any) -> None:
    around = ChatPrompt(tokenizer, system="S").speech()
    before, after = tokenizer.decode(around.before), tokenizer.decode(around.after)
    assert before.endswith("<|im_start|>user\n")
    assert "<|im_start|>system\nS<|im_end|>" in before
    assert after == f"{SPEECH_INSTRUCTION}<|im_end|>\n<|im_start|>assistant\n"


def test_instructions_may_be_empty_or_given_to_both(tiny_tokenizer: Any) -> None:
    bare = ChatPrompt(tiny_tokenizer, speech_instruction="")
    assert tiny_tokenizer.decode(bare.speech().after) == "<|im_end|>\n<|im_start|>assistant\n"
    asked = ChatPrompt(tiny_tokenizer, text_instruction=" Answer.")
    assert "<|im_start|>user\nWhat? Answer.<|im_end|>" in tiny_tokenizer.decode(asked.text("What?"))


def with_template(tokenizer: Any, template: str | None) -> Any:
    import copy

    changed = copy.deepcopy(tokenizer)
    changed.chat_template = template
    return changed


def test_unfit_templates_are_named(tiny_tokenizer: Any) -> None:
    with pytest.raises(ValueError, match=r"no chat template \(allowed: an instruction-tuned model"):
        ChatPrompt(with_template(tiny_tokenizer, None))
    with pytest.raises(ValueError, match="shows the user's text 0 times"):
        ChatPrompt(with_template(tiny_tokenizer, "hello"))
    refusing = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    refusing += "{{ messages[0]['content'] }}"
    ChatPrompt(with_template(tiny_tokenizer, refusing))
    with pytest.raises(ValueError, match=r"refuses \['system', 'user'\]: no system role"):
        ChatPrompt(with_template(tiny_tokenizer, refusing), system="S")


def test_the_prompt_does_not_depend_on_the_day(tiny_tokenizer: Any) -> None:
    template = "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    template += "{{ date_string }}{{ messages[0]['content'] }}"
    dated = with_template(tiny_tokenizer, template)
    assert tiny_tokenizer.decode(ChatPrompt(dated).text("What?")) == "26 Jul 2024What?"
    chosen = ChatPrompt(dated, template_options={"date_string": "1 May 2020"})
    assert tiny_tokenizer.decode(chosen.text("What?")) == "1 May 2020What?"


def test_answers_of_templates_that_differ_from_their_generation_prompt(tiny_tokenizer: Any) -> None:
    # Llama 2 prints " answer </s>" after a prompt that ends without the blank; a bare one ends with nothing at all.
    spaced = with_template(
        tiny_tokenizer,
        "{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
        "{% else %} {{ m['content'] }} <|im_end|>{% endif %}{% endfor %}",
    )
    assert ChatPrompt(spaced).answer_text("Paris") == " Paris <|im_end|>"
    bare = with_template(tiny_tokenizer, "{% for m in messages %}{{ m['content'] }}|{% endfor %}")
    assert ChatPrompt(bare).answer_text("Paris") == "Paris<|im_end|>"
