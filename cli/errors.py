"""How the command line reports an error: one line, an exit code, and the traceback only on request."""

from __future__ import annotations

import linecache
import os
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from ..foundation.errors import USAGE_ERROR, UserError

DEBUG_VARIABLE = "TEXTKEEP_DEBUG"

EXPECTED: tuple[type[Exception], ...] = (ValueError, OSError, ImportError)
"""Errors raised by bad input. Anything else is a bug and keeps its traceback."""


TRIED_TYPES = "Does not validate against any of the Union subtypes"
"""How jsonargparse begins when a class in a config refuses its settings; the refusal is the cause."""

REFUSAL = re.compile(
    r"Problem with given class_path '(?:[\w.]+\.)?(\w+)':\s*(.+?)\s*(?=\n\s*- |\nGiven |\Z)", re.DOTALL
)
"""Its message about a class that cannot be instantiated, among all the types that it tried."""


@contextmanager
def speaking_as(verb: str) -> Iterator[None]:
    """Prefixes messages about bad input from the parts that a verb calls with the verb's name.

    Raises:
        UserError: With the verb.
    """
    try:
        yield
    except UserError as error:
        raise UserError(f"{verb}: {error}") from error


def said_by_lightning(error: BaseException) -> bool:
    """Returns whether Lightning raised this on purpose, so that its message is meant for the user.

    For example, it refuses an unknown metric with a ``RuntimeError``. An error that arose inside its own code is a
    different matter and keeps its traceback.
    """
    frames = list(traceback.walk_tb(error.__traceback__))
    if not frames:
        return False
    frame, line = frames[-1]
    own = str(frame.f_globals.get("__name__", "")).startswith(("lightning.", "lightning_fabric.", "pytorch_lightning."))
    return own and linecache.getline(frame.f_code.co_filename, line).lstrip().startswith("raise ")


def debugging() -> bool:
    """Returns whether the user asked for tracebacks (``TEXTKEEP_DEBUG=1``)."""
    return os.environ.get(DEBUG_VARIABLE, "") not in {"", "0"}


def one_line(error: BaseException) -> str:
    """Returns the text of an error on a single line, or the name of its class if it has no text.

    A class's complaint about its own settings is shown without the tree of types that jsonargparse tried.
    """
    while True:
        text = str(error)
        if refused := REFUSAL.findall(text):
            name, reason = refused[-1]
            text = reason if reason.startswith(name) else f"{name}: {reason}"
        elif text.startswith(TRIED_TYPES) and error.__cause__ is not None:
            error = error.__cause__
            continue
        return " ".join(text.split()) or type(error).__name__


def complain(message: str, code: int = USAGE_ERROR) -> int:
    """Prints ``textkeep: error: <message>`` to standard error.

    Returns:
        The exit code to end with.
    """
    print(f"textkeep: error: {message}", file=sys.stderr)
    return code
