"""Conversations as a tokenizer's chat template prints them, up to the token that ends an answer."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from ..sources.bad_examples import BadExampleError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_QUESTION, _ANSWER, _NEXT = (f"\u241e{name}\u241e" for name in ("QUESTION", "ANSWER", "NEXT"))
"""Stand-ins for texts: no data holds them, and no template finds anything in them to change."""

DAY = datetime(2024, 7, 26)
"""In the place of today, which some templates print (Llama 3, Granite): runs must not depend on the day."""
_TODAY = re.compile(r"""strftime_now\(\s*(["'])(.*?)\1\s*\)""")

_FRAMES = 1024
"""System prompts whose frames are kept: data in which every row has its own must not fill the memory."""


class TemplateRefusalError(ValueError):
    """The template does not print these turns (a system prompt for Gemma 2, say), or not as they are."""


@contextmanager
def refusals_at(location: str) -> Iterator[None]:
    """Turns refusals into errors of the example at a location.

    Raises:
        BadExampleError: In the place of a ``TemplateRefusalError``.
    """
    try:
        yield
    except TemplateRefusalError as error:
        raise BadExampleError("refused by the chat template", location, str(error)) from None


class Rendered(NamedTuple):
    """A conversation as strings.

    Attributes:
        prompt: Up to and with the generation prompt.
        whole: The same conversation with the answer and the token that ends it.
    """

    prompt: str
    whole: str


class _Frame(NamedTuple):
    """What a template prints around a question and its answer.

    Attributes:
        head: Before the question.
        tail: Between the question and what the model has to say: the generation prompt.
        lead: What the model has to say before the answer (Qwen 3: an empty thought).
        after: After the answer, to the end of the conversation.
        agrees: Whether a conversation begins with its generation prompt.
    """

    head: str
    tail: str
    lead: str
    after: str
    agrees: bool


class ChatTemplate:
    """Prints questions with and without their answers, exactly as the template does.

    What stands around the texts is found once per system prompt, with stand-ins for them. Texts in which a template may
    find something to change (it strips white space, it takes thoughts out) are printed by the template itself.

    A generation prompt that the template's conversations do not go on from (DeepSeek-R1 opens a thought there that it
    leaves out of a finished turn) is not used: the prompt is then what stands before the answer in a conversation, so
    that a model is asked as it was taught.

    Args:
        tokenizer: With the template.
        options: More variables for the template.
        system: The system prompt with which the end of a turn is looked for.

    Raises:
        ValueError: If the tokenizer has no chat template or no end-of-sequence token, or if the template changes,
            repeats or leaves out a text.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, options: Mapping[str, Any], system: str | None = None
    ) -> None:
        if not tokenizer.chat_template:
            raise ValueError(
                f"{tokenizer.name_or_path}: the tokenizer has no chat template (allowed: an instruction-tuned model)"
            )
        if tokenizer.eos_token is None:
            raise ValueError(
                f"{tokenizer.name_or_path}: the tokenizer has no end-of-sequence token "
                "(allowed: one with eos_token in its tokenizer_config.json)"
            )
        self.tokenizer = tokenizer
        template = tokenizer.get_chat_template(options.get("chat_template"), options.get("tools"))
        self.options = {**options, "chat_template": _undated(template)}
        self._frames: dict[str | None, _Frame] = {}
        self._in_parts = False
        self.end = self._end_of(system)
        """What is printed from the answer to the token that ends it, that token included."""

    @property
    def end_id(self) -> int:
        """The token that ends an answer: the last one that is learned, and a stop of generation."""
        return int(self.tokenizer(self.end, add_special_tokens=False)["input_ids"][-1])

    def prompt(self, question: str, system: str | None) -> str:
        """Prints a question, up to and with the generation prompt.

        Raises:
            TemplateRefusalError: If the template refuses it.
        """
        frame = self._frame(system)
        if _untouched(question):
            return frame.head + question + frame.tail
        if frame.agrees:
            return self._apply(_turns(system, question), add_generation_prompt=True)
        return self._apply(_turns(system, question, _ANSWER)).partition(_ANSWER)[0]

    def conversation(self, question: str, answer: str, system: str | None) -> Rendered:
        """Prints a question with its answer.

        Raises:
            TemplateRefusalError: If the template refuses it.
        """
        frame = self._frame(system)
        prompt = self.prompt(question, system)
        if _untouched(question) and _untouched(answer):
            return Rendered(prompt, f"{prompt}{frame.lead}{answer}{self.end}")
        whole = self._apply(_turns(system, question, answer))
        if not whole.endswith(frame.after):
            raise TemplateRefusalError(f"the chat template ends its turn otherwise after {answer[-40:]!r}")
        return Rendered(prompt, whole[: len(whole) - len(frame.after)] + self.end)

    def _frame(self, system: str | None) -> _Frame:
        if system not in self._frames:
            if len(self._frames) >= _FRAMES:
                self._frames.clear()
            self._frames[system] = self._find_frame(system)
        return self._frames[system]

    def _find_frame(self, system: str | None) -> _Frame:
        asked = self._apply(_turns(system, _QUESTION), add_generation_prompt=True)
        told = self._apply(_turns(system, _QUESTION, _ANSWER))
        head, tail = self._around(asked, _QUESTION, "user's text")
        before, after = self._around(told, _ANSWER, "answer")
        if before.startswith(asked):
            return _Frame(head, tail, before[len(asked) :], after, agrees=True)
        head, tail = self._around(before, _QUESTION, "user's text")
        return _Frame(head, tail, "", after, agrees=False)

    def _around(self, rendered: str, text: str, what: str) -> tuple[str, str]:
        parts = rendered.split(text)
        if len(parts) != 2:
            raise TemplateRefusalError(
                f"{self.tokenizer.name_or_path}: the chat template shows the {what} {len(parts) - 1} times "
                "(allowed: a template that shows it once, unchanged)"
            )
        return parts[0], parts[1]

    def _end_of(self, system: str | None) -> str:
        """Finds the end; a template that does not print texts may print lists of them (some of audio LLMs)."""
        try:
            return self._find_end(system)
        except TemplateRefusalError:
            self._in_parts = True
            self._frames.clear()
            with suppress(TemplateRefusalError):
                return self._find_end(system)
            raise

    def _find_end(self, system: str | None) -> str:
        """Finds what follows an answer, up to and with the first token that the vocabulary marks special.

        Templates may print more after it (a line feed): the model never has to say it. A template that prints no
        special token there may have an added one that its vocabulary does not mark; else the turn ends where the next
        one begins (GLM-4: ``<|user|>``); else the end-of-sequence token is taken.
        """
        added = self.tokenizer.added_tokens_decoder.values()
        special = {str(token) for token in self.tokenizer.all_special_tokens}
        special |= {token.content for token in added if token.special}
        after = self._frame(system).after
        for text, tokens in (
            (after, special),
            (after, {token.content for token in added if token.content.strip()}),
            (self._before_next(system), special - {self.tokenizer.bos_token}),
        ):
            if (found := _up_to_first(text, tokens)) is not None:
                return found
        return str(self.tokenizer.eos_token)

    def _before_next(self, system: str | None) -> str:
        """Prints what stands between an answer and the next question."""
        try:
            rendered = self._apply([*_turns(system, _QUESTION, _ANSWER), {"role": "user", "content": _NEXT}])
        except TemplateRefusalError:
            return ""
        return rendered.partition(_ANSWER)[2].partition(_NEXT)[0]

    def _apply(self, messages: list[dict[str, str]], add_generation_prompt: bool = False) -> str:
        from jinja2 import TemplateError

        given: list[Any] = [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in messages]
        try:
            rendered = self.tokenizer.apply_chat_template(
                given if self._in_parts else messages,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                **self.options,
            )
        except TemplateError as error:
            roles = [message["role"] for message in messages]
            name = self.tokenizer.name_or_path
            raise TemplateRefusalError(f"{name}: the chat template refuses {roles}: {error}") from None
        return str(rendered)


def _turns(system: str | None, question: str, answer: str | None = None) -> list[dict[str, str]]:
    roles = {"system": system, "user": question, "assistant": answer}
    return [{"role": role, "content": text} for role, text in roles.items() if text is not None]


def _undated(template: str) -> str:
    """Replaces today by a fixed day."""
    return _TODAY.sub(lambda found: repr(DAY.strftime(found[2])), template)


def _untouched(text: str) -> bool:
    """Returns whether no template has a reason to change this."""
    return text != "" and text == text.strip() and "<" not in text


def _up_to_first(text: str, tokens: Collection[str]) -> str | None:
    """Cuts a text behind the first of the tokens; of two that begin together, the longer one counts."""
    found = [(text.find(token), token) for token in tokens if token and token in text]
    if not found:
        return None
    start, token = min(found, key=lambda pair: (pair[0], -len(pair[1])))
    return text[: start + len(token)]
