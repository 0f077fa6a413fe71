"""Plain text, as a language model is pretrained on: no question, no chat template."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from ...foundation.json_lines import json_objects
from ...foundation.text_lines import paragraphs, plain_name
from .bad_examples import BadExampleError, BadExamples
from .example import Example
from .source import Source

_WORD = re.compile(r"\S+\s*")


class PlainText(Source):
    """Passages of a text file, or the ``text`` of each line of a JSONL file.

    In a .txt file, passages are separated by empty lines. Every token of a passage is supervised; it begins as the
    tokenizer begins a text (Llama 3: with its beginning-of-text token) and has no end.

    Args:
        path: A .txt or .jsonl file in UTF-8, plain or compressed with gzip (.txt.gz, .jsonl.gz).
        max_words: Longer passages are cut into pieces of that many words; a piece must fit into ``tokens_per_batch``.
            None leaves them whole.
    """

    def __init__(self, path: str, max_words: int | None = 100) -> None:
        if max_words is not None and max_words < 2:
            raise ValueError(f"PlainText.max_words: {max_words} (allowed: at least 2, or null for whole passages)")
        self.path = Path(path)
        self._kind = plain_name(path).suffix
        if self._kind not in (".txt", ".jsonl"):
            raise ValueError(f"PlainText.path: {path} (allowed: a .txt or a .jsonl file)")
        self.max_words = max_words
        self.name = plain_name(path).stem

    def read(self, bad: BadExamples, answers_required: bool = True) -> list[Example]:
        """Reads all passages."""
        if not self.path.is_file():
            raise FileNotFoundError(f"{self.path}: no such text (allowed: a .txt or a .jsonl file)")
        passages = self._lines(bad) if self._kind == ".jsonl" else paragraphs(self.path, bad.report)
        examples = []
        for number, passage in passages:
            words = _WORD.findall(passage)
            size = self.max_words or len(words)
            for part, start in enumerate(range(0, len(words), size)):
                text = "".join(words[start : start + size]).strip()
                identity, location = f"{self.name}:{number}:{part}", f"{self.path}:{number}"
                examples.append(Example(identity, "", (), text, source=self.name, location=location, plain=True))
        return examples

    def _lines(self, bad: BadExamples) -> Iterator[tuple[int, str]]:
        for number, record in json_objects(self.path, bad.report):
            text = record.get("text")
            if isinstance(text, str) and text.strip():
                yield number, text
                continue
            shown = json.dumps(record, ensure_ascii=False)[:40]
            detail = f'no "text" in {shown!r}; allowed: objects with a "text" that is not empty'
            bad.report(BadExampleError("no text", f"{self.path}:{number}", detail))
