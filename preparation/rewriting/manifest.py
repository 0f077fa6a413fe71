"""The new manifest: its questions, its clips, and what happens to each answer."""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ...datamodules.sources.bad_examples import BadExamples
from ...datamodules.sources.example import Example
from ...datamodules.sources.named import read_sources
from ...evaluation import qa_match
from ...foundation.errors import UserError
from ...foundation.files import replacing
from .part_file import Answer

Clips = dict[str, tuple[Path, str]]
"""Id -> clip, and its path in the new manifest."""


def read_questions(manifest: str, limit: int | None) -> tuple[list[Example], int]:
    """Reads the questions that are known as text.

    Args:
        manifest: A JSONL manifest, or ``spoken-facts/SPLIT``.
        limit: At most this many, the first ones.

    Returns:
        The examples, and how many have no written question.

    Raises:
        UserError: If none has.
    """
    found = read_sources(manifest, BadExamples("raise"))
    written = [example for example in found if example.question]
    if not written:
        raise UserError(f"rewrite: {manifest} has no written questions")
    return written[:limit], len(found) - len(written)


def find_clips(examples: Sequence[Example], output: Path, copy: bool) -> Clips:
    """Finds the clips of the new manifest, and where they will be stored.

    Args:
        examples: Of the old manifest.
        output: The new manifest.
        copy: Whether clips that lie elsewhere are to be copied beside it.

    Raises:
        UserError: If a clip lies outside the manifest's folder and is not to be copied.
    """
    root = output.parent.resolve()
    found: Clips = {}
    for example in examples:
        if example.audio is None:
            continue
        clip = Path(str(example.audio)).resolve()
        if clip.is_relative_to(root):
            found[example.id] = (clip, clip.relative_to(root).as_posix())
        elif copy:
            mark = hashlib.sha256(str(clip.parent).encode()).hexdigest()[:8]
            found[example.id] = (clip, f"{output.stem}_clips/{clip.stem}-{mark}{clip.suffix}")
        else:
            raise UserError(
                f"rewrite: {example.location}: the clip {example.audio} is not under {root}, the new manifest's "
                "folder; allowed: an -o in a folder above it, or --copy-clips"
            )
    return found


def copy_clips(clips: Clips, root: Path, kept: Collection[str]) -> None:
    """Brings the clips of the kept questions to where the new manifest names them."""
    for identity, (clip, name) in clips.items():
        target = root / name
        if identity not in kept or target.exists():
            continue
        with replacing(target) as temporary:
            shutil.copyfile(clip, temporary)


@dataclass
class Rewriting:
    """Which answers become targets.

    Args:
        llm: Who wrote them; each line says so.
        keep: ``all``, or ``correct``: only answers in which an accepted answer occurs.
        longest: Most tokens of an answer, for the record.
        clips: Of the new manifest.

    Attributes:
        outcome: What became of the answers, counted.
    """

    llm: str
    keep: Literal["all", "correct"]
    longest: int
    clips: Clips
    outcome: Counter[str] = field(default_factory=Counter)

    def rows(self, examples: Sequence[Example], answers: Mapping[str, Answer]) -> list[dict[str, Any]]:
        """Returns the lines of the new manifest, one for each answer that is kept."""
        return [row for example in examples if (row := self._row(example, answers[example.id]))]

    def _row(self, example: Example, answer: Answer) -> dict[str, Any] | None:
        correct = qa_match(answer.text, example.answers)
        if (reason := self._reason(answer, correct)) is not None:
            self.outcome[f"{reason}, left out"] += 1
            return None
        self.outcome["with an accepted answer" if correct else "without an accepted answer"] += 1
        row = {"id": example.id, "question": example.question, "answers": list(example.answers), "target": answer.text}
        if example.id in self.clips:
            row["audio"] = self.clips[example.id][1]
        if example.system is not None:
            row["system"] = example.system
        return {**row, "source": example.source, **example.metadata, "target_by": self.llm}

    def _reason(self, answer: Answer, correct: bool) -> str | None:
        """Says why an answer is left out; None if it is kept."""
        if not answer.ended:
            return f"not ended within {self.longest} tokens"
        if not answer.text:
            return "empty"
        return "without an accepted answer" if self.keep == "correct" and not correct else None

    def told(self) -> str:
        """Returns the outcome in words, the most frequent first."""
        return ", ".join(f"{count} {what}" for what, count in self.outcome.most_common())
