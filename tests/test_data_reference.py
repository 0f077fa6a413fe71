"""What docs/data.md says of keys, sources and options is what the code reads."""

from __future__ import annotations

import ast
import inspect
import json
import re
from pathlib import Path

import pytest
import yaml

from tests.support.house import ROOT
from textkeep import datamodules
from textkeep.datamodules import Manifest, Source, SpeechTextData
from textkeep.datamodules.sources import source as source_module
from textkeep.datamodules.sources.bad_examples import BadExamples
from textkeep.foundation.assets import embedded_split

PAGE = (ROOT / "docs/data.md").read_text(encoding="utf-8")


def rows(section: str, columns: int) -> list[list[str]]:
    """The rows of the tables of a section that have so many columns."""
    text = re.split(rf"^## {re.escape(section)}\n", PAGE, flags=re.MULTILINE)[1].partition("\n## ")[0]
    cells = [re.split(r"(?<!\\) *\| *", line.strip("| ")) for line in text.splitlines() if line.startswith("|")]
    return [row for row in cells if len(row) == columns and row[0].startswith("`")]


KEYS = {row[0].strip("`"): row for row in rows("A manifest", 5)}


def read(tmp_path: Path, line: dict[str, object], answers_required: bool = True) -> object:
    (tmp_path / "clips").mkdir(exist_ok=True)
    (tmp_path / "clips/q1.wav").touch()
    path = tmp_path / "m.jsonl"
    path.write_text(json.dumps(line) + "\n", encoding="utf-8")
    (example,) = Manifest(str(path)).read(BadExamples("raise"), answers_required)
    return example


def test_every_key_that_the_code_knows_has_its_line() -> None:
    known = next(
        ast.literal_eval(node.value)
        for node in ast.walk(ast.parse(inspect.getsource(source_module)))
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "known"
    )
    asked = set()
    for name in ("callbacks/evaluations", "datamodules/sources"):
        for path in (ROOT / name).glob("*.py"):
            asked |= set(re.findall(r'metadata(?:\.get\(|\[)"(\w+)"', path.read_text(encoding="utf-8")))
    assert asked >= {"choices", "gold", "kwargs", "seconds"}
    assert set(KEYS) >= known | asked


def test_its_examples_are_read_as_it_says(tmp_path: Path) -> None:
    line = {key: json.loads(row[3].strip("`")) for key, row in KEYS.items()}
    found = vars(read(tmp_path, line))
    assert {key: {**found["metadata"], **found}[key] for key in KEYS if key not in ("answers", "audio")} == {
        key: value for key, value in line.items() if key not in ("answers", "audio")
    }
    assert found["answers"] == ("Lima",)
    assert found["audio"] == tmp_path / "clips/q1.wav"


def test_what_it_calls_required_is_and_the_rest_is_not(tmp_path: Path) -> None:
    needed = {key for key, row in KEYS.items() if row[2] == "required"}
    assert needed == {"id", "question"}
    few = {"id": "q1", "question": "Q?", "answers": "Lima"}
    assert vars(read(tmp_path, few))["target"] == "Lima"
    assert vars(read(tmp_path, {"id": 1, "question": "Q?", "target": "Lima."}))["answers"] == ("Lima.",)
    assert vars(read(tmp_path, {"id": 1, "question": "Q?"}, answers_required=False))["answers"] == ()
    for key in ("id", "question", "answers"):
        with pytest.raises(ValueError, match=key):
            read(tmp_path, {name: value for name, value in few.items() if name != key})


@pytest.mark.parametrize("key", ["question", "audio", "system"])
def test_a_text_is_a_text(key: str, tmp_path: Path) -> None:
    assert KEYS[key][1] == "text"
    with pytest.raises(ValueError, match=key):
        read(tmp_path, {"id": "q1", "question": "Q?", "answers": "Lima", key: 7})


REQUIRED = object()


def signature_of(owner: type) -> dict[str, object]:
    """Option -> its default, or ``REQUIRED``."""
    found = inspect.signature(owner).parameters.values()
    return {p.name: REQUIRED if p.default is p.empty else p.default for p in found}


def test_every_source_has_its_options() -> None:
    public = [getattr(datamodules, name) for name in datamodules.__all__]
    sources = {
        found for found in public if inspect.isclass(found) and issubclass(found, Source) and found is not Source
    }
    told = {row[0].strip("`"): re.findall(r"`(\w+)(?:: (\w+))?`", row[2]) for row in rows("Sources", 3)}
    defaults = {n: {o: yaml.safe_load(d) if d else REQUIRED for o, d in options} for n, options in told.items()}
    assert defaults == {source.__name__: signature_of(source) for source in sources}


def test_every_name_of_an_embedded_set_is_one() -> None:
    listed = [cell for row in rows("Sources", 2) for cell in [row[0]] if "spoken-facts" in cell or "plain-text" in cell]
    names = [(cell.partition("/")[0].strip("`"), re.findall(r"/(\w+)`", cell)) for cell in listed]
    assert len(names) == 3
    assert all(embedded_split(f"{group}/{split}").is_file() for group, splits in names for split in splits)
    spoken = next(row[1] for row in rows("Sources", 2) if "spoken-facts/train" in row[0])
    counts = [
        len(embedded_split(f"spoken-facts/{s}").read_text().splitlines()) for s in ("train", "validation", "test")
    ]
    assert [int(number) for number in re.findall(r"\d+", spoken)] == counts


def test_every_option_of_the_data_has_its_default() -> None:
    told: dict[str, str] = {}
    for cell, default, _ in rows("The keys of `data`", 3):
        told |= dict.fromkeys(re.findall(r"\w+", cell), default.strip("`"))
    expected = signature_of(SpeechTextData)
    assert {name: yaml.safe_load(default) for name, default in told.items()} == expected
