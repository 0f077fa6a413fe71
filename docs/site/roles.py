"""What our docstrings have of reStructuredText, as Markdown, for mkdocstrings: references and ``::`` before code."""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:class|func|meth|attr|data|mod|exc):`~?([^`]+)`")
CODE_FOLLOWS = re.compile(r"^[ ]*::$\n", re.MULTILINE)


class Roles(griffe.Extension):
    """Rewrites the docstring of each object as it is read."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Takes roles away and leaves the names; indented code needs no sign before it."""
        if obj.docstring is not None:
            obj.docstring.value = CODE_FOLLOWS.sub("", ROLE.sub(r"`\1`", obj.docstring.value))
