"""The families of docs/audio_llms.md are those that tests run; ``python -m tests.test_docs_audio_llms`` writes them."""

from __future__ import annotations

import re
import shlex
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support.tiny_audio_llms import FAMILIES, class_of, write_tiny_audio_llm
from textkeep.cli.importance.command import COMMANDS
from textkeep.lightning_modules import OwnEar, SpeechLLM
from textkeep.lightning_modules.ears.sound_parts import INSIDE_TOWER, PROJECTORS

PAGE = Path(__file__).resolve().parents[1] / "docs" / "audio_llms.md"
PLACE = re.compile(r"(?<=audio_llms\.py -->\n).*?(?=\n<!-- end -->)", re.DOTALL)
EARS = re.compile(r"(?<=audio_llms\.py: ears -->\n).+?(?=\n<!-- end -->)", re.DOTALL)


def table() -> str:
    """A line a family of ``tests/lightning_modules/test_carving.py``."""
    lines = ["| `model_type` | audio LLM | text LLM inside | |", "| --- | --- | --- | --- |"]
    for name, family in FAMILIES.items():
        lines.append(f"| `{name}` | `{class_of(name).__name__}` | `{family.text_base}` | {family.remark} |")
    return "\n".join(lines)


def part_of(key: str) -> str:
    """Gives the module of an adaptor's weight: by its name alone, or in the tower that it ends."""
    words = key.split(".")
    for count in range(1, len(words)):
        path = ".".join(words[:count])
        if PROJECTORS.search(path) or INSIDE_TOWER.search(path):
            return ".".join(words[count - (2 if INSIDE_TOWER.search(path) else 1) : count])
    raise ValueError(key)


def table_of_ears(folder: Path) -> str:
    """A line a family of ``tests/lightning_modules/test_own_ear.py``."""
    lines = ["| `model_type` | what is `model.adaptor` | LLM positions a second, at most |", "| --- | --- | --- |"]
    for name in [name for name, family in FAMILIES.items() if family.processor is not None]:
        model = SpeechLLM(str(write_tiny_audio_llm(name, folder / name)), ear=OwnEar())
        model.configure_model()
        named = ", ".join(f"`{part}`" for part in sorted({part_of(key) for key, _ in model.adaptor.named_parameters()}))
        lines.append(f"| `{name}` | {named} | {model.front_end.positions_per_second:g} |")
    return "\n".join(lines)


def test_its_table_is_of_what_the_tests_run() -> None:
    assert PLACE.findall(PAGE.read_text(encoding="utf-8")) == [table()]
    assert len(FAMILIES) >= 10


def test_its_table_of_ears_is_of_what_trains(tmp_path: Path) -> None:
    assert EARS.findall(PAGE.read_text(encoding="utf-8")) == [table_of_ears(tmp_path)]


def test_its_commands_parse() -> None:
    blocks = re.findall(r"^(?:    .*\n)+", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    lines = [line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    lines = [line for line in lines if line.startswith("textkeep importance ")]
    assert len(lines) == 2
    for line in lines:
        _, _, command, *words = shlex.split(line)
        arguments = import_module(COMMANDS[command][0], package="textkeep.cli.importance")._parser().parse_args(words)
        assert arguments.data == "spoken-facts/general"


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        ears = table_of_ears(Path(folder))
    page = PLACE.sub(lambda _: table(), PAGE.read_text(encoding="utf-8"))
    PAGE.write_text(EARS.sub(lambda _: ears, page), encoding="utf-8")
