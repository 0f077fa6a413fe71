"""Prompts and answers as ids of the tokenizer's own chat template, with the place where the audio goes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from .chat_template import DAY, ChatTemplate, TemplateRefusalError
from .pieces import PieceTokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SPEECH_INSTRUCTION = "\nPlease directly answer the questions in the user's speech."
"""LLaMA-Omni's text after the speech in the user turn (its template for Llama 3)."""

_AUDIO = "\u241eAUDIO\u241e"
_SYSTEMS = 1024


@dataclass(frozen=True)
class SpeechPrompt:
    """Token ids before and after the audio positions."""

    before: list[int]
    after: list[int]


class Conversation(NamedTuple):
    """Ids of a question with its answer.

    Attributes:
        ids: Ids of the question (of a spoken one: what follows the audio), the answer and the token that ends it.
        answer: Index of the first id that is learned.
        continues: Whether the ids before it are those of the question asked alone, all of them.
    """

    ids: list[int]
    answer: int
    continues: bool = False


class ChatPrompt:
    """Renders questions and answers by the tokenizer's chat template.

    A conversation is tokenized whole, so its ids are the template's own; the answer begins at the first id that the
    prompt alone does not have in its place. It ends with the first token that the vocabulary marks special
    (``ChatTemplate`` finds it), which is what the model learns to stop with.

    The audio is at the very start of the user turn, directly after its header and before the instruction, where
    LLaMA-Omni puts it; the text twin has the question in the same place. The ids on both sides of it are those of a
    text in which it is one special token, as in transformers' audio LLMs.

    Args:
        tokenizer: Its chat template decides everything but the user's text.
        speech_instruction: Text after the audio; may be empty.
        text_instruction: Text after a text question; empty by default, so that the text prompt is the LLM's own.
        system: System prompt for the examples that bring none; None leaves the template's default.
        template_options: More variables for the template (``{"enable_thinking": false}`` for Qwen 3).
        around: What an audio LLM's template writes before and after the positions of a clip.

    Raises:
        ValueError: If the tokenizer has no chat template or no end-of-sequence token, or the template changes or
            repeats a text.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        speech_instruction: str = SPEECH_INSTRUCTION,
        text_instruction: str = "",
        system: str | None = None,
        template_options: Mapping[str, Any] | None = None,
        around: tuple[str, str] = ("", ""),
    ) -> None:
        self.tokenizer = tokenizer
        self.around = around
        self.speech_instruction = speech_instruction
        self.text_instruction = text_instruction
        self.system = system
        self.template = ChatTemplate(tokenizer, {"date_string": f"{DAY:%d %b %Y}", **(template_options or {})}, system)
        self.end_id = self.template.end_id
        self._marker_id, self._marker = _plainest_special(tokenizer)
        self._speech: dict[str | None, SpeechPrompt] = {}
        self.tokenize = PieceTokenizer(tokenizer, self._marker + self.conversation_text("Q", "A"))

    def text(self, question: str, system: str | None = None) -> list[int]:
        """Returns the template's own ids of a text question, up to and with the generation prompt.

        Raises:
            TemplateRefusalError: If the template refuses it, as the other methods do.
        """
        return self._ids(self.template.prompt(question + self.text_instruction, self._system(system)))

    def conversation(self, question: str, target: str | None, system: str | None = None) -> Conversation:
        """Returns the template's own ids of a text question and its answer (of the question alone without a target)."""
        if target is None:
            ids = self.text(question, system)
            return Conversation(ids, len(ids))
        rendered = self.template.conversation(question + self.text_instruction, target, self._system(system))
        prompt, whole = self.tokenize(rendered)
        return _conversation(prompt, whole)

    def conversation_text(self, question: str, target: str | None, system: str | None = None) -> str:
        """Returns the text that ``conversation`` makes ids of."""
        if target is None:
            return self.template.prompt(question + self.text_instruction, self._system(system))
        return self.template.conversation(question + self.text_instruction, target, self._system(system)).whole

    def speech(self, system: str | None = None) -> SpeechPrompt:
        """Returns the ids around the audio of a spoken question, up to and with the generation prompt."""
        key = self._system(system)
        if key not in self._speech:
            if len(self._speech) >= _SYSTEMS:
                self._speech.clear()
            head, *tails = self.template.prompt(self._spoken_question, key).split(_AUDIO)
            if len(tails) != 1:
                raise TemplateRefusalError(f"{_AUDIO!r}, which stands for the audio, is part of another text")
            tail = tails[0]
            place = self._ids(head).count(self._marker_id)  # the head may hold the same token
            before, after = self._split(self._ids(head + self._marker + tail), place)
            self._speech[key] = SpeechPrompt(before, after)
        return self._speech[key]

    def spoken_conversation(self, target: str | None, system: str | None = None) -> Conversation:
        """Returns the ids of what follows the audio of a spoken question, with its answer if there is a target."""
        prompt = self.speech(system).after
        if target is None:
            return Conversation(prompt, len(prompt))
        ids = self._split(self._ids(self.spoken_text(target, system)))[1]
        return _conversation(prompt, ids)

    def spoken_text(self, target: str | None, system: str | None = None) -> str:
        """Returns the text that ``spoken_conversation`` makes ids of: one token in the audio's place, then the rest."""
        question = self._spoken_question
        if target is None:
            return self._marker + self.template.prompt(question, self._system(system)).partition(_AUDIO)[2]
        whole = self.template.conversation(question, target, self._system(system)).whole
        return self._marker + whole.partition(_AUDIO)[2]

    def answer(self, target: str) -> list[int]:
        """Returns the ids that are learned of an answer to a text question, the end of the turn included."""
        found = self.conversation("?", target)
        return found.ids[found.answer :]

    def plain(self, text: str) -> list[int]:
        """Returns the ids of a text outside any conversation, as the tokenizer begins and ends one."""
        return list(self.tokenizer(text)["input_ids"])

    def transcript(self, question: str) -> list[int]:
        """Returns the ids of a question alone (for CTC alignment)."""
        return self._ids(question)

    @property
    def _spoken_question(self) -> str:
        """What a user turn holds, the clip as a stand-in."""
        before, after = self.around
        return f"{before}{_AUDIO}{after}{self.speech_instruction}"

    def _system(self, system: str | None) -> str | None:
        return self.system if system is None else system

    def _split(self, ids: list[int], place: int = 0) -> tuple[list[int], list[int]]:
        """Returns the text before and after the token that represents the audio."""
        at = -1
        for _ in range(place + 1):
            at = ids.index(self._marker_id, at + 1)
        return ids[:at], ids[at + 1 :]

    def _ids(self, text: str) -> list[int]:
        return self.tokenize([text])[0] if text else []


def _conversation(prompt: list[int], whole: list[int]) -> Conversation:
    answer = _shared(prompt, whole)
    return Conversation(whole, answer, answer == len(prompt))


def _shared(prompt: list[int], whole: list[int]) -> int:
    """Counts the ids that both begin with: fewer than the prompt's where its end merges with the answer's beginning."""
    if whole[: len(prompt)] == prompt:
        return len(prompt)
    return next(i for i, (ours, theirs) in enumerate(zip(prompt, whole, strict=False)) if ours != theirs)


def _plainest_special(tokenizer: PreTrainedTokenizerBase) -> tuple[int, str]:
    """Finds a special token, by id and text, that takes no white space from its neighbours: it stands for the audio."""
    added = [(i, token) for i, token in tokenizer.added_tokens_decoder.items() if token.special and token.content]
    if not added:  # a tokenizer in Python whose vocabulary begins with them (ByT5's)
        return int(tokenizer.eos_token_id), str(tokenizer.eos_token)
    order = {i: (token.lstrip + token.rstrip + token.single_word, token.normalized) for i, token in added}
    number, token = min(added, key=lambda pair: order[pair[0]])
    return number, token.content
