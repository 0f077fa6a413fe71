from __future__ import annotations

from typing import Any

import pytest

from textkeep.datamodules.batches.prompts import SPEECH_INSTRUCTION, ChatPrompt
from textkeep.datamodules.sources.bad_examples import BadExampleError
from textkeep.foundation.assets import locate

QUESTIONS = ["What is the capital of France?", "2 + 2 = ?", "Wie heißt du?", "\u4f60\u597d", "a  b", "'tis", "5"]


@pytest.fixture(params=["tiny", "smollm2"])
def tokenizer(request: pytest.FixtureRequest, tiny_tokenizer: Any) -> Any:
    """The tiny tokenizer, and SmolLM2's where it was fetched (``textkeep assets``)."""
    if request.param == "tiny":
        return tiny_tokenizer
    try:
        folder = locate("smollm2-135m-instruct")
    except FileNotFoundError as error:
        pytest.skip(str(error))
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
    silent = "{{ messages[0]['content'] }}"
    with pytest.raises(ValueError, match="shows the answer 0 times"):
        ChatPrompt(with_template(tiny_tokenizer, silent))
    refusing = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    refusing += "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    ChatPrompt(with_template(tiny_tokenizer, refusing))
    with pytest.raises(ValueError, match=r"refuses \['system', 'user'\]: no system role"):
        ChatPrompt(with_template(tiny_tokenizer, refusing), system="S")


def test_a_tokenizer_without_an_end_is_refused(tiny_tokenizer: Any) -> None:
    import copy

    endless = copy.deepcopy(tiny_tokenizer)
    endless.eos_token = None
    with pytest.raises(ValueError, match=r"no end-of-sequence token \(allowed: one with eos_token"):
        ChatPrompt(endless)


def test_the_prompt_does_not_depend_on_the_day(tiny_tokenizer: Any) -> None:
    template = "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    template += "{{ date_string }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
    dated = with_template(tiny_tokenizer, template)
    assert tiny_tokenizer.decode(ChatPrompt(dated).text("What?")) == "26 Jul 2024What?"
    chosen = ChatPrompt(dated, template_options={"date_string": "1 May 2020"})
    assert tiny_tokenizer.decode(chosen.text("What?")) == "1 May 2020What?"


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        ("{{ strftime_now('%B %d, %Y') }}", "July 26, 2024"),
        ('{{ strftime_now( "%Y-%m-%d" ) }}', "2024-07-26"),
        ("{%- set d = strftime_now('%d')|int %}{%- if strftime_now is defined %}{{ d - 1 }}{% endif %}", "25"),
    ],
)
def test_a_template_that_asks_for_today_is_told_a_fixed_day(tiny_tokenizer: Any, printed: str, expected: str) -> None:
    template = printed + "|{% for m in messages %}{{ m['content'] }}{% endfor %}"
    dated = with_template(tiny_tokenizer, template)
    for prompt in (
        ChatPrompt(dated),
        ChatPrompt(with_template(tiny_tokenizer, {"default": template, "rag": "x"})),  # type: ignore[arg-type]
        ChatPrompt(tiny_tokenizer, template_options={"chat_template": template}),
    ):
        assert tiny_tokenizer.decode(prompt.text("What?")) == f"{expected}|What?"
        assert tiny_tokenizer.decode(prompt.text("<What>")) == f"{expected}|<What>"
        assert tiny_tokenizer.decode(prompt.speech().before) == f"{expected}|"


def test_a_text_that_holds_a_stand_in_is_refused_with_its_place(tiny_tokenizer: Any) -> None:
    from textkeep.datamodules.batches.chat_template import refusals_at

    prompt = ChatPrompt(tiny_tokenizer)
    for system, ask in (("\u241eANSWER\u241e", prompt.text), ("\u241eAUDIO\u241e", prompt.spoken_conversation)):
        with pytest.raises(BadExampleError, match=r"^train\.jsonl:7: "), refusals_at("train.jsonl:7"):
            ask("Paris", system=system)
    odd = "\u241eANSWER\u241e \u241eAUDIO\u241e"
    found = prompt.conversation(odd, odd)
    assert found.ids == chat(tiny_tokenizer, ("user", odd), ("assistant", odd))[: len(found.ids)]
    spoken = prompt.spoken_conversation(odd)
    assert spoken.ids[spoken.answer :] == found.ids[found.answer :]


def answer_text(tokenizer: Any, template: str) -> str:
    return str(tokenizer.decode(ChatPrompt(with_template(tokenizer, template)).answer("Paris")))


def test_answers_of_templates_that_differ_from_their_generation_prompt(tiny_tokenizer: Any) -> None:
    # Llama 2 prints " answer </s>" after a prompt that ends without the blank; a bare one ends with nothing at all.
    spaced = "{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
    spaced += "{% else %} {{ m['content'] }} <|im_end|>{% endif %}{% endfor %}"
    assert answer_text(tiny_tokenizer, spaced) == " Paris <|im_end|>"
    assert answer_text(tiny_tokenizer, "{% for m in messages %}{{ m['content'] }}|{% endfor %}") == "Paris<|im_end|>"


def test_the_end_of_a_turn_is_found(tiny_tokenizer: Any) -> None:
    turns = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{{ end }}\n{% endfor %}"
    marked, unmarked = with_template(tiny_tokenizer, turns), with_template(tiny_tokenizer, turns)
    marked.add_special_tokens({"additional_special_tokens": ["<end>", "<end>!"]})
    unmarked.add_tokens(["<end>", "<user>"])
    for tokenizer, end, expected in (
        (marked, " <end> <|im_end|>", "<end>"),  # the first of two
        (marked, "<end>!", "<end>!"),  # the longer of two
        (marked, "", "<|im_end|>"),  # none: the end of the sequence
        (unmarked, "<end>", "<end>"),  # added, though not marked special
        (unmarked, "<end><|im_end|>", "<|im_end|>"),
    ):
        prompt = ChatPrompt(tokenizer, template_options={"end": end})
        assert prompt.end_id == tokenizer.convert_tokens_to_ids(expected)
        assert prompt.answer("Paris")[-1] == prompt.end_id
    # Where only the next question ends a turn, its token is taken, but not one that begins a sequence.
    roles = "{% for m in messages %}{{ {'user': opening, 'assistant': 'A: '}[m['role']] + m['content'] }}{% endfor %}"
    for opening, expected in (("<end>", "<end>"), ("<|im_start|>", "<|im_end|>")):
        prompt = ChatPrompt(with_template(marked, roles), template_options={"opening": opening})
        assert prompt.end_id == marked.convert_tokens_to_ids(expected)


def test_a_prompt_that_conversations_do_not_go_on_from_is_not_used(tiny_tokenizer: Any) -> None:
    template = tiny_tokenizer.chat_template.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
    prompt = ChatPrompt(with_template(tiny_tokenizer, template))
    assert tiny_tokenizer.decode(prompt.text("What?")).endswith("<|im_start|>assistant\n")
    assert tiny_tokenizer.decode(prompt.text(" What? ")).endswith(" What? <|im_end|>\n<|im_start|>assistant\n")
    assert tiny_tokenizer.decode(prompt.answer("Paris")) == "Paris<|im_end|>"


def test_templates_strip_what_they_strip(tiny_tokenizer: Any) -> None:
    template = tiny_tokenizer.chat_template.replace("m['content']", "m['content'] | trim")
    trimming = with_template(tiny_tokenizer, template)
    assert ChatPrompt(trimming).answer(" Paris\n") == ChatPrompt(trimming).answer("Paris")
    assert ChatPrompt(trimming).text(" What?") == ChatPrompt(trimming).text("What?")
    assert ChatPrompt(tiny_tokenizer).answer(" Paris\n") != ChatPrompt(tiny_tokenizer).answer("Paris")


def test_frames_of_many_system_prompts_do_not_pile_up(tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from textkeep.datamodules.batches import chat_template, prompts

    monkeypatch.setattr(chat_template, "_FRAMES", 4)
    monkeypatch.setattr(prompts, "_SYSTEMS", 4)
    prompt = ChatPrompt(tiny_tokenizer)
    for i in range(20):
        assert prompt.text("What?", f"S{i}") == ChatPrompt(tiny_tokenizer, system=f"S{i}").text("What?")
        assert prompt.speech(f"S{i}") == ChatPrompt(tiny_tokenizer, system=f"S{i}").speech()
    assert len(prompt.template._frames) <= 4
    assert len(prompt._speech) <= 4


def test_it_travels_to_spawned_workers(tiny_tokenizer: Any) -> None:
    import pickle

    prompt = ChatPrompt(tiny_tokenizer)
    there = pickle.loads(pickle.dumps(prompt))
    assert there.conversation("What?", " Paris") == prompt.conversation("What?", " Paris")
    assert there.speech() == prompt.speech()


def test_a_tokenizer_that_marks_no_added_token_special() -> None:
    from transformers import ByT5Tokenizer

    tokenizer = ByT5Tokenizer(extra_ids=0)
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role }}:{{ m.content }}{{ eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )
    prompt = ChatPrompt(tokenizer, speech_instruction="Answer.")
    whole = chat(tokenizer, ("user", "Why?"), ("assistant", "So."))
    found = prompt.conversation("Why?", "So.")
    assert (found.ids, prompt.end_id) == (whole, tokenizer.eos_token_id)
    assert found.ids[: found.answer] == chat(tokenizer, ("user", "Why?"), add_generation_prompt=True)
    assert tokenizer.decode(prompt.speech().before) == "user:"
    assert prompt.spoken_conversation("So.").ids[-len("So.") - 1 :] == prompt.answer("So.")
