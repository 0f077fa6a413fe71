"""Where examples come from."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from .bad_examples import BadExampleError, BadExamples
from .example import Audio, Example

ALIASES = {
    "id": ("qid", "question_id", "uid", "key", "index"),
    "question": ("prompt", "text", "query", "instruction", "input"),
    "answers": ("answer", "target_text", "response", "output", "label"),
}
"""What others call our keys."""


class Source(ABC):
    """A set of examples that can be named in YAML by ``class_path``."""

    name: str
    """Goes into ``Example.source`` where an example names none itself."""

    @abstractmethod
    def read(self, bad: BadExamples, answers_required: bool = True) -> list[Example]:
        """Reads all examples, without opening a clip.

        Args:
            bad: Receives each example that cannot be used; it raises or counts.
            answers_required: False allows questions without answers (prediction).

        Raises:
            FileNotFoundError: If the source itself does not exist.
            BadExampleError: If an example is bad and the policy is ``raise``.
        """


def build_example(
    record: Mapping[str, Any],
    audio: Audio | None,
    location: str,
    source: str,
    question_required: bool = True,
    answers_required: bool = True,
) -> Example:
    """Makes an example of one record with the manifest's keys.

    Args:
        record: ``id, question, answers, target, system, source``; every other key becomes metadata.
        audio: The clip, already found.
        location: For messages.
        source: Used when the record names none.
        question_required: False where a spoken question may come without its text.
        answers_required: False where a question may come without answers.

    Raises:
        BadExampleError: If the id, the question or the answers are missing, empty or of a wrong type.
    """
    identity = as_text(record.get("id"))
    if not identity:
        detail = f'"id" is {record.get("id")!r}{misnamed(record, "id")}; allowed: a string that is not empty'
        raise BadExampleError("missing id", location, detail)
    question = record.get("question", "")
    if not isinstance(question, str) or (question_required and not question.strip()):
        detail = f'"question" is {question!r}{misnamed(record, "question")}; allowed: text that is not empty'
        raise BadExampleError("empty question", location, detail)
    answers = _answers(record, location, answers_required)
    target, system = as_text(record.get("target")), record.get("system")
    for key, value in (("target", target), ("system", system)):
        if record.get(key) is not None and not isinstance(value, str):
            raise BadExampleError("wrong type", location, f'"{key}" is {record[key]!r}; allowed: text')
    known = {"id", "question", "answers", "target", "audio", "system", "source"}
    return Example(
        id=identity,
        question=question.strip(),
        answers=answers,
        target=(target or "").strip() or (answers[0] if answers else ""),
        audio=audio,
        system=system,
        source=str(record.get("source") or source),
        location=location,
        metadata={key: value for key, value in record.items() if key not in known},
    )


def misnamed(record: Mapping[str, Any], wanted: str) -> str:
    """Names the key that was probably meant to be ``wanted``, if that is missing."""
    if wanted in record:
        return ""
    names = {str(key).lower().strip("\ufeff _"): str(key) for key in record if record[key]}
    near = next((names[name] for name in (wanted, *ALIASES[wanted]) if name in names), None)
    near = near or next((names[name] for name in get_close_matches(wanted, names, n=1)), None)
    return "" if near is None else f'; there is "{near}", which should be named "{wanted}"'


def _answers(record: Mapping[str, Any], location: str, required: bool) -> tuple[str, ...]:
    """Returns the accepted spellings, stripped; a single one counts as a list of one, a number as its text."""
    given = record.get("answers")
    if given is None:
        given = record.get("target")
    if given in (None, "", [], ()) and not required:
        return ()
    listed = given if isinstance(given, list | tuple) else [given]
    answers = tuple((as_text(answer) or "").strip() for answer in listed)
    if not answers or not all(answers):
        fault = f'"answers" is {given!r}{misnamed(record, "answers")}'
        detail = f"{fault}; allowed: a list of at least one text, none of them empty"
        raise BadExampleError("empty answer", location, detail)
    return answers


def as_text(value: object) -> str | None:
    """Returns a text as it is, a number as its text, and None for everything else.

    A whole number has no point: tables keep 1969 as 1969.0 where another row of the column has no value.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, int):
        return repr(value)
    if not math.isfinite(value):
        return None
    return repr(int(value)) if value == int(value) and abs(value) < 2**53 else repr(value)


def without_duplicates(examples: list[Example], bad: BadExamples) -> list[Example]:
    """Keeps the first example of each id and reports the others."""
    seen: dict[str, str] = {}
    kept = []
    for example in examples:
        if example.id in seen:
            detail = f"id {example.id!r} was already used at {seen[example.id]}; allowed: each id once"
            bad.report(BadExampleError("duplicate id", example.location, detail))
            continue
        seen[example.id] = example.location
        kept.append(example)
    return kept
