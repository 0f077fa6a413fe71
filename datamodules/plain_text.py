"""Plain text, as a language model is pretrained on: no question, no chat template."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from .bad_examples import BadExampleError, BadExamples
from .example import Example
from .source import Source

_WORD = re.compile(r"\S+\s*")


class PlainText(Source):
    """Passages of a text file, or the ``text`` of each line of a JSONL file.

    In a .txt file, passages are separated by empty lines. Every token of a passage is supervised; it begins as the
    tokenizer begins a text (Llama 3: with its beginning-of-text token) and has no end.

    Args:
        path: A .txt or .jsonl file in UTF-8.
        max_words: Longer passages are cut into pieces of so many words; a piece must fit into ``tokens_per_batch``.
    """

    def __init__(self, path: str, max_words: int = 100) -> None:
        if max_words < 2:
            raise ValueError(f"PlainText.max_words: {max_words} (allowed: at least 2)")
        self.path = Path(path)
        if self.path.suffix not in (".txt", ".jsonl"):
            raise ValueError(f"PlainText.path: {path} (allowed: a .txt or a .jsonl file)")
        self.max_words = max_words
        self.name = self.path.stem

    def read(self, bad: BadExamples, answers_required: bool = True) -> list[Example]:
        """Read all passages (see ``Source.read``)."""
        if not self.path.is_file():
            raise FileNotFoundError(f"{self.path}: no such text (allowed: a .txt or a .jsonl file)")
        try:
            content = self.path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{self.path}: not UTF-8 ({error.reason} at byte {error.start})") from None
        passages = self._lines(content, bad) if self.path.suffix == ".jsonl" else _paragraphs(content)
        examples = []
        for number, passage in passages:
            words = _WORD.findall(passage)
            for part, start in enumerate(range(0, len(words), self.max_words)):
                text = "".join(words[start : start + self.max_words]).strip()
                identity, location = f"{self.name}:{number}:{part}", f"{self.path}:{number}"
                examples.append(Example(identity, "", (), text, source=self.name, location=location, plain=True))
        return examples

    def _lines(self, content: str, bad: BadExamples) -> Iterator[tuple[int, str]]:
        for number, line in enumerate(content.splitlines(), start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                record = f"not JSON: {error.msg}"
            text = record.get("text") if isinstance(record, dict) else None
            if isinstance(text, str) and text.strip():
                yield number, text
                continue
            detail = f'no "text" in {line.strip()[:40]!r}; allowed: objects with a "text" that is not empty'
            bad.report(BadExampleError("no text", f"{self.path}:{number}", detail))


def _paragraphs(content: str) -> Iterator[tuple[int, str]]:
    """Number of the first line, and text, of the passages between empty lines."""
    lines: list[str] = []
    for number, line in enumerate([*content.splitlines(), ""], start=1):
        if line.strip():
            lines.append(line)
        elif lines:
            yield number - len(lines), "\n".join(lines)
            lines = []
