"""Docstrings of functions say what the function does: they begin with a verb in the third person."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.house import ROOT

ROOMS = (
    "foundation",
    "importance",
    "evaluation",
    "datamodules",
    "lightning_modules",
    "callbacks",
    "inference",
    "planning",
    "runs",
    "preparation",
    "cli",
)
NOUNS = {"Its", "This", "As", "Loss", "Items", "Results", "Samples", "Rows", "Keys", "Texts", "Lines", "Always", "Plus"}
"""Words that end as such a verb does and are none."""
PROPERTIES = {"property", "cached_property", "setter"}
"""What is read like an attribute is described like one."""


def beginnings(path: Path) -> Iterator[tuple[str, str]]:
    """Gives name and first line of the docstring of each function of a file, properties left out."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (text := ast.get_docstring(node)):
            marks = {ast.unparse(mark).split(".")[-1].split("(")[0] for mark in node.decorator_list}
            if not marks & PROPERTIES:
                yield node.name, text.splitlines()[0]


def begins_with_a_verb(line: str) -> bool:
    word = line.split()[0].rstrip(".,:;")
    return word.isalpha() and word[0].isupper() and word.endswith("s") and word not in NOUNS


@pytest.mark.parametrize("room", ROOMS)
def test_functions_say_what_they_do(room: str) -> None:
    files = sorted((ROOT / room).rglob("*.py"))
    found = [(path.relative_to(ROOT).as_posix(), *start) for path in files for start in beginnings(path)]
    assert [begun for begun in found if not begins_with_a_verb(begun[2])] == []
    assert len(found) > 5


def test_other_beginnings_are_seen(tmp_path: Path) -> None:
    code = '@property\ndef a():\n    """The A."""\ndef b():\n    """Reads."""\ndef c():\n    """See :class:`C`."""\n'
    (tmp_path / "code.py").write_text(code + 'def d():\n    """Return it."""\ndef e():\n    """Rows by name."""\n')
    found = dict(beginnings(tmp_path / "code.py"))
    assert {name: begins_with_a_verb(line) for name, line in found.items()} == {
        "b": True,
        "c": False,
        "d": False,
        "e": False,
    }
