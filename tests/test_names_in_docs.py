"""Files, folders and dotted names that documents, configs, scripts and docstrings mention exist."""

from __future__ import annotations

import importlib
import re
import subprocess
from functools import cache

import pytest

from tests.support.house import ROOMS, ROOT

IN_RUNS = ("importance", "evaluation", "runs")
"""Rooms whose names are also those of folders of a run: there, only names of code are looked for."""
FOLDERS = [*(room for room in ROOMS if room not in IN_RUNS), "configs", "docs", "tests", "benchmarks"]
CODE = r"py|md|jinja|toml|sh"
PATHS = re.compile(
    rf"(?<![\w./~*<-])(?:(?:{'|'.join(FOLDERS)})/[\w./*-]*[\w*/]|(?:{'|'.join(IN_RUNS)})/[\w./-]+\.(?:{CODE})\b)"
)
DOTTED = re.compile(rf"(?<![\w.\"-])(?:textkeep\.(?:{'|'.join(ROOMS)})|{'|'.join(FOLDERS)})(?:\.[A-Za-z_]\w*)+")
LINKS = re.compile(r"\]\((?!https?://|#)([^)#\s]+)")
ENDINGS = (".md", ".yaml", ".py", ".jsonl", ".json", ".csv", ".svg")

TRACKED = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
WRITTEN = [n for n in TRACKED if n.endswith((".md", ".yaml", ".sh")) or n in ("NOTICE", "Makefile", ".ci/run")]
WRITTEN.remove("CHANGELOG.md")  # it speaks of what was
SOURCES = [n for n in TRACKED if n.endswith(".py") and n.split("/")[0] in (*ROOMS, "benchmarks", "docs")]


def missing(text: str) -> list[str]:
    """The paths and dotted names of a text that are not there."""
    paths = [found for found in PATHS.findall(text) if not _is_there(found)]
    return paths + [name for name in DOTTED.findall(text) if not name.endswith(ENDINGS) and not _importable(name)]


def _is_there(path: str) -> bool:
    return any(ROOT.glob(path.rstrip("/"))) if "*" in path else (ROOT / path).exists()


@cache
def _importable(name: str) -> bool:
    parts = name.split(".")
    if parts[0] in ROOMS:
        parts.insert(0, "textkeep")
    for length in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[length:]:
            if not hasattr(found, attribute):
                return False
            found = getattr(found, attribute)
        return True
    return False


@pytest.mark.parametrize("name", WRITTEN)
def test_what_a_document_names_exists(name: str) -> None:
    path = ROOT / name
    text = path.read_text(encoding="utf-8")
    links = [link for link in LINKS.findall(text) if path.suffix == ".md" and not (path.parent / link).exists()]
    assert missing(text) + links == []


def test_what_the_code_names_exists() -> None:
    texts = {name: (ROOT / name).read_text(encoding="utf-8") for name in SOURCES if (ROOT / name).is_file()}
    assert {name: gone for name, text in texts.items() if (gone := missing(text))} == {}


def test_a_name_that_is_gone_is_seen() -> None:
    text = "see cli/gone.py, lightning_modules/saving/, importance/shift.py, importance/gone.py, importance/before,"
    text += (
        " outputs/quickstart, configs/tuning/*.yaml, configs/gone/*.yaml, `textkeep.importance.shift`, textkeep.json,"
    )
    text += " lightning_modules.step_boundary, textkeep.callbacks.LoRA, docs/data.md. tests/nothing"
    gone = ["cli/gone.py", "importance/gone.py", "configs/gone/*.yaml", "tests/nothing"]
    assert missing(text) == [*gone, "lightning_modules.step_boundary", "textkeep.callbacks.LoRA"]
