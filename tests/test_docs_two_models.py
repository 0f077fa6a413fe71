"""What docs/two_models.md tells a reader to type parses, and what makes its figures too."""

from __future__ import annotations

import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest

from textkeep.cli.importance.command import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "two_models.md").read_text(encoding="utf-8")
SCRIPT = re.sub(r"\\\n\s+", "", (ROOT / "benchmarks" / "two_models.sh").read_text(encoding="utf-8"))
BLOCKS = "\n".join(re.findall(r"^(?:    .*\n)+", TEXT, re.MULTILINE)).replace("\\\n", " ")
TYPED = [*BLOCKS.splitlines(), *re.sub(r"\$(\w+)", r"\1", SCRIPT).splitlines()]
LINES = sorted({line.strip() for line in TYPED if line.strip().startswith("textkeep ")})


@pytest.mark.parametrize("line", LINES)
def test_a_command_parses(line: str) -> None:
    _, verb, *words = shlex.split(line, comments=True)
    if verb == "importance":
        place, *words = words
        module = import_module(COMMANDS[place][0], package="textkeep.cli.importance")
    else:
        module = import_module(f"textkeep.cli.{verb}")
    module._parser().parse_args(words)
