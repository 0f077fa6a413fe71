"""LLaMA-Omni's JSON of spoken instructions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...foundation.json_lines import json_document, require_text
from ...foundation.text_lines import BadLineError, plain_name
from .bad_examples import BadExampleError, BadExamples
from .example import Example
from .manifest import ClipFinder
from .source import Source, build_example, without_duplicates

_SPEECH = "<speech>"


class LlamaOmniJSON(Source):
    """A JSON list of ``{id, speech: path, conversations: [{from: human, value}, {from: gpt, value}]}``.

    The first question and its answer are taken. What follows ``<speech>`` in the human's text is LLaMA-Omni's fixed
    instruction, not the question: our prompt brings its own. The question's text is read from ``text`` of the human's
    turn or of the item, or from a ``value`` without ``<speech>``; without it the example has no text twin. The form of
    InstructS2S-200K (``conversation``, ``speech`` and ``text`` in each turn) is read as well.

    Args:
        path: The JSON file, in UTF-8, plain or compressed with gzip.
        audio_root: Folder that ``speech`` is relative to; default the file's folder.
    """

    def __init__(self, path: str, audio_root: str | None = None) -> None:
        self.path = Path(path)
        self.audio_root = Path(audio_root) if audio_root else self.path.parent
        self.name = plain_name(path).stem

    def read(self, bad: BadExamples, answers_required: bool = True) -> list[Example]:
        """Reads all items."""
        if not self.path.is_file():
            raise FileNotFoundError(f"{self.path}: no such file (allowed: LLaMA-Omni's JSON)")
        items = json_document(self.path, "a JSON list")
        if not isinstance(items, list):
            raise ValueError(f"{self.path}: a JSON {type(items).__name__}; allowed: a list of items")
        finder = ClipFinder(self.audio_root)
        examples = []
        for index, item in enumerate(items):
            location = f"{self.path}[{index}]"
            try:
                require_text(item, location)
                examples.append(self._example(item, location, finder, answers_required))
            except (BadExampleError, BadLineError) as error:
                bad.report(error)
        return without_duplicates(examples, bad)

    def _example(self, item: Any, location: str, finder: ClipFinder, answers_required: bool) -> Example:
        human, reply = _first_turns(item, location)
        speech = item.get("speech") or human.get("speech")
        audio = finder.find(speech, location) if speech is not None else None
        value = str(human.get("value") or "")
        spoken = _SPEECH in value
        question = human.get("text") or item.get("text") or ("" if spoken else value)
        answer = reply.get("value") or reply.get("text") or ""
        used = ("conversations", "conversation", "speech", "text")
        record = {key: value for key, value in item.items() if key not in used}
        record |= {"question": question, "answers": [answer] if answer else []}
        return build_example(record, audio, location, self.name, audio is None, answers_required)


def _first_turns(item: Any, location: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Finds the first human turn and the reply to it."""
    turns = (item.get("conversations") or item.get("conversation")) if isinstance(item, dict) else None
    first = turns[:2] if isinstance(turns, list) else []
    if [isinstance(turn, dict) and turn.get("from") for turn in first] not in (["human", "gpt"], ["human"]):
        detail = "no conversation; allowed: a list of turns that starts with human, gpt"
        raise BadExampleError("bad conversation", location, detail)
    return first[0], first[1] if len(first) == 2 else {}
