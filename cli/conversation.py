"""Questions typed one after another while the model stays loaded."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TextIO

from ..foundation.errors import USAGE_ERROR, UserError
from .errors import EXPECTED, complain, debugging, one_line

GREETING = "Type a question, or the path of a sound file; each is asked on its own. Ctrl-D ends."
PROMPT = "> "
SOUNDS = {".wav", ".flac", ".ogg", ".mp3", ".opus", ".aiff", ".au"}
"""A line that ends in one of these is taken for a file, even if there is none."""


class Question(NamedTuple):
    """What is asked."""

    modality: str
    """``speech`` or ``text``."""
    given: str
    """Path of the clip, or the question."""
    option: str = ""
    """The option it was given with, for messages; empty if it was typed."""


def converse(answer: Callable[[Question], None]) -> int:
    """Answers typed or piped lines until the input ends; a bad line is reported and skipped.

    Args:
        answer: Prints the answer to a question, or raises what is wrong with it.

    Returns:
        The exit code: 2 if a piped line could not be asked (someone typing has seen the message).

    Raises:
        UserError: If a pipe was empty.
    """
    code, asked, at_terminal = 0, False, sys.stdin.isatty()
    for line in _lines(sys.stdin, at_terminal):
        asked = True
        try:
            answer(as_question(line))
        except EXPECTED as error:
            if debugging():
                raise
            complain(one_line(error))
            code = 0 if at_terminal else USAGE_ERROR
    if not asked and not at_terminal:
        raise UserError("nothing was asked; give --audio FILE or --text QUESTION, or type questions")
    return code


def as_question(line: str) -> Question:
    """Takes a line for a clip if such a file exists or it is named like one, otherwise for a written question."""
    path = Path(line.strip("'\"")).expanduser()
    with suppress(OSError):  # a long question is not a valid file name
        if path.suffix.lower() in SOUNDS or path.is_file():
            return Question("speech", str(path))
    return Question("text", line)


def _lines(source: TextIO, at_terminal: bool) -> Iterator[str]:
    """Yields the lines that are not empty; prompts for them at a terminal."""
    if not at_terminal:
        yield from (line.strip() for line in source if line.strip())
        return
    with suppress(ImportError):
        import readline  # noqa: F401 - arrow keys edit the line, and bring earlier ones back
    print(GREETING, file=sys.stderr, flush=True)
    while True:
        try:
            line = input(PROMPT).strip()
        except EOFError:
            print(file=sys.stderr)  # the shell's prompt starts on a new line
            return
        if line:
            yield line
