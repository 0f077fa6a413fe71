"""Every message that docs/troubleshooting.md explains is one that the code writes."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest

from tests.support.house import ROOMS, ROOT

PAGE = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
MESSAGES = [found for _, found in re.findall(r"^### (`+) ?(.*?) ?\1$", PAGE, re.MULTILINE)]
GAP = "…"


@cache
def texts() -> list[str]:
    """The texts of the code, with a gap where something is put in; a text that is added up counts as one."""
    found = []
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    found.append("".join(str(v.value) if isinstance(v, ast.Constant) else GAP for v in node.values))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return found


def parts(message: str) -> list[str]:
    """What a message has between its gaps, without what two gaps have between them."""
    return [part.strip() for part in message.split(GAP) if len(part.strip()) > 2]


def missing(message: str) -> list[str]:
    """The parts that the code does not have: in one text, or, of a message put together, in several."""
    listed = parts(message)
    longest = max(listed, key=len)
    holders = [text for text in texts() if longest in text]
    if any(all(part in text for part in listed) for text in holders):
        return []
    return [part for part in listed if not any(part in text for text in texts())] if holders else [longest]


@pytest.mark.parametrize("message", MESSAGES)
def test_the_code_says_it(message: str) -> None:
    assert missing(message) == []


def test_there_are_messages_and_an_unknown_one_is_seen() -> None:
    assert len(MESSAGES) > 20
    assert missing("adaptor_weights: … was made for teapot …") == ["was made for teapot"]
    assert missing("no such thing was ever said") == ["no such thing was ever said"]
