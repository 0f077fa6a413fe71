"""The parser of the verbs that do not train, and the plain text that ``--help`` shows."""

from __future__ import annotations

import argparse
import re
from typing import Any

_MARKUP = re.compile(r"``|:\w+:(?=`)")
"""Double backticks and Sphinx roles, which docstrings need and a terminal does not."""


def without_markup(text: str) -> str:
    """Removes the markup of docstrings from a help text."""
    return _MARKUP.sub("", text)


class CommandParser(argparse.ArgumentParser):
    """argparse's parser without abbreviated options, whose help shows docstrings as plain text."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def format_help(self, *args: Any) -> str:
        """Formats the help (Python 3.15 passes a formatter)."""
        return without_markup(super().format_help(*args))
