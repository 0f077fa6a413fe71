"""Prompts from the tokenizer's own chat template, with the place where the audio goes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SPEECH_INSTRUCTION = "\nPlease directly answer the questions in the user's speech."
"""LLaMA-Omni's text after the speech in the user turn (its template for Llama 3)."""

_SENTINEL = "\u241eTEXTKEEP\u241e"
_FIXED_DATE = "26 Jul 2024"  # Llama 3's template prints today's date unless told one: runs must not depend on the day


@dataclass(frozen=True)
class SpeechPrompt:
    """Token ids before and after the audio positions."""

    before: list[int]
    after: list[int]


class ChatPrompt:
    """Renders questions by the tokenizer's chat template.

    The template is rendered once per system prompt with a sentinel as the user's text and split there. The audio stands
    at the very start of the user turn, directly after its header and before the instruction, where LLaMA-Omni puts it;
    the text twin has the question in the same place.

    Args:
        tokenizer: Its chat template decides everything but the user's text.
        speech_instruction: Text after the audio; may be empty.
        text_instruction: Text after a text question; empty by default, so that the text prompt is the LLM's own.
        system: System prompt for the examples that bring none; None leaves the template's default.
        template_options: More variables for the template (``{"enable_thinking": false}`` for Qwen 3).

    Raises:
        ValueError: If the tokenizer has no chat template, or the template changes or repeats the user's text.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        speech_instruction: str = SPEECH_INSTRUCTION,
        text_instruction: str = "",
        system: str | None = None,
        template_options: Mapping[str, Any] | None = None,
    ) -> None:
        if not tokenizer.chat_template:
            raise ValueError(
                f"{tokenizer.name_or_path}: the tokenizer has no chat template (allowed: an instruction-tuned model)"
            )
        self.tokenizer = tokenizer
        self.speech_instruction = speech_instruction
        self.text_instruction = text_instruction
        self.system = system
        self.template_options = {"date_string": _FIXED_DATE, **(template_options or {})}
        self._frames: dict[str | None, tuple[str, str]] = {}
        self._speech: dict[str | None, SpeechPrompt] = {}
        self._answer_lead, self._answer_end = self._answer_frame()

    def speech(self, system: str | None = None) -> SpeechPrompt:
        """Ids around the audio of a spoken question, up to and with the generation prompt."""
        key = self.system if system is None else system
        if key not in self._speech:
            head, tail = self._frame(key)
            self._speech[key] = SpeechPrompt(self._ids(head), self._ids(self.speech_instruction + tail))
        return self._speech[key]

    def text(self, question: str, system: str | None = None) -> list[int]:
        """Ids of a text question, up to and with the generation prompt: the template's own ids."""
        return self._ids(self.render(question, system))

    def render(self, question: str, system: str | None = None) -> str:
        """The prompt of a text question as a string."""
        head, tail = self._frame(self.system if system is None else system)
        return head + question + self.text_instruction + tail

    def answer(self, target: str) -> list[int]:
        """Ids of an answer with the end of the turn: what is supervised."""
        return self._ids(self.answer_text(target))

    def answer_text(self, target: str) -> str:
        """The answer with the end of its turn as a string."""
        return self._answer_lead + target + self._answer_end

    def plain(self, text: str) -> list[int]:
        """Ids of a text that is no conversation, as the tokenizer begins and ends one."""
        return list(self.tokenizer(text)["input_ids"])

    def transcript(self, question: str) -> list[int]:
        """Ids of a question alone (for CTC alignment)."""
        return self._ids(question)

    def _frame(self, system: str | None) -> tuple[str, str]:
        """What stands before and after the user's text, the generation prompt included."""
        if system not in self._frames:
            rendered = self._apply(self._messages(system), add_generation_prompt=True)
            parts = rendered.split(_SENTINEL)
            if len(parts) != 2:
                raise ValueError(
                    f"{self.tokenizer.name_or_path}: the chat template shows the user's text {len(parts) - 1} times "
                    "(allowed: a template that shows it once, unchanged)"
                )
            self._frames[system] = (parts[0], parts[1])
        return self._frames[system]

    def _answer_frame(self) -> tuple[str, str]:
        """Text between generation prompt and answer, and the end of turn after the answer.

        Templates may print more after the end-of-turn token (a line feed): the model never has to say it, so the end is
        cut after the first special token; where a template prints none, the end-of-sequence token is taken.
        """
        head, tail = self._frame(self.system)
        prompt = head + _SENTINEL + tail
        reply = {"role": "assistant", "content": _SENTINEL}
        whole = self._apply([*self._messages(self.system), reply], add_generation_prompt=False)
        before, _, after = whole.rpartition(_SENTINEL)
        lead = before[len(prompt) :] if before.startswith(prompt) else ""
        specials = {str(token) for token in self.tokenizer.all_special_tokens}
        found = [(after.find(token), token) for token in specials if token and token in after]
        if not found:
            return lead, str(self.tokenizer.eos_token)
        start, token = min(found, key=lambda pair: (pair[0], -len(pair[1])))
        return lead, after[: start + len(token)]

    def _messages(self, system: str | None) -> list[dict[str, str]]:
        user = {"role": "user", "content": _SENTINEL}
        return [user] if system is None else [{"role": "system", "content": system}, user]

    def _apply(self, messages: list[dict[str, str]], add_generation_prompt: bool) -> str:
        from jinja2 import TemplateError

        try:
            rendered = self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=add_generation_prompt, **self.template_options
            )
        except TemplateError as error:
            roles = [message["role"] for message in messages]
            raise ValueError(f"{self.tokenizer.name_or_path}: the chat template refuses {roles}: {error}") from None
        return str(rendered)

    def _ids(self, text: str) -> list[int]:
        # Templates print the beginning-of-sequence token themselves.
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []
