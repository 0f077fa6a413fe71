"""What docs/importance.md and its results tell a reader to type parses."""

from __future__ import annotations

import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest

from textkeep.cli.importance.command import COMMANDS

DOCS = Path(__file__).resolve().parents[1] / "docs"
TEXT = "\n".join((DOCS / name).read_text(encoding="utf-8") for name in ("importance.md", "results/importance.md"))
BLOCKS = "\n".join(re.findall(r"^(?:    .*\n)+", TEXT, re.MULTILINE)).replace("\\\n", " ")
LINES = sorted({line.strip() for line in BLOCKS.splitlines() if line.strip().startswith("textkeep importance ")})


def test_every_command_is_shown() -> None:
    assert {line.split()[2] for line in LINES} == set(COMMANDS)


@pytest.mark.parametrize("line", LINES)
def test_a_command_parses(line: str) -> None:
    _, _, command, *words = shlex.split(line, comments=True)
    module = import_module(COMMANDS[command][0], package="textkeep.cli.importance")
    module._parser().parse_args(words)
