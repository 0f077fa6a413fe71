"""The families of docs/audio_llms.md are those that tests run; ``python -m tests.test_docs_audio_llms`` writes them."""

from __future__ import annotations

import re
import shlex
from importlib import import_module
from pathlib import Path

from tests.support.tiny_audio_llms import FAMILIES, class_of
from textkeep.cli.importance.command import COMMANDS

PAGE = Path(__file__).resolve().parents[1] / "docs" / "audio_llms.md"
PLACE = re.compile(r"(?<=audio_llms\.py -->\n).*?(?=\n<!-- end -->)", re.DOTALL)


def table() -> str:
    """A line a family of ``tests/lightning_modules/test_carving.py``."""
    lines = ["| `model_type` | audio LLM | text LLM inside | |", "| --- | --- | --- | --- |"]
    for name, family in FAMILIES.items():
        lines.append(f"| `{name}` | `{class_of(name).__name__}` | `{family.text_base}` | {family.remark} |")
    return "\n".join(lines)


def test_its_table_is_of_what_the_tests_run() -> None:
    assert PLACE.findall(PAGE.read_text(encoding="utf-8")) == [table()]
    assert len(FAMILIES) >= 10


def test_its_commands_parse() -> None:
    blocks = re.findall(r"^(?:    .*\n)+", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    lines = [line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    assert len(lines) == 2
    for line in lines:
        _, _, command, *words = shlex.split(line)
        arguments = import_module(COMMANDS[command][0], package="textkeep.cli.importance")._parser().parse_args(words)
        assert arguments.data == "spoken-facts/general"


if __name__ == "__main__":
    PAGE.write_text(PLACE.sub(lambda _: table(), PAGE.read_text(encoding="utf-8")), encoding="utf-8")
