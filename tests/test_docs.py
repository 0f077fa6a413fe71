"""What docs/studies.md and docs/evaluation.md show is accepted by the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from textkeep import callbacks
from textkeep.runs.study.spec import read_study

ROOT = Path(__file__).resolve().parents[1]
STUDIES, EVALUATION = ((ROOT / "docs" / name).read_text() for name in ("studies.md", "evaluation.md"))


def test_the_plan_of_the_document_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    whole, slurm = re.findall(r"```yaml\n(.*?)```", STUDIES, re.DOTALL)
    (tmp_path / "plan.yaml").write_text(whole + slurm)
    study = read_study(tmp_path / "plan.yaml")
    assert [arm.name for arm in study.arms] == ["full", "adaptor_only"]
    assert study.slurm is not None


def test_the_classes_and_overlays_of_the_document_exist() -> None:
    assert set(re.findall(r"^\| `(\w+)` \| ", EVALUATION, re.MULTILINE)) - {"correct"} >= {"Cascade", "PlainTextLoss"}
    named = re.findall(r"^\| `([A-Z]\w+)` \| ", EVALUATION, re.MULTILINE)
    assert set(named) <= set(callbacks.__all__)
    assert all((ROOT / name).is_file() for name in re.findall(r"configs/[\w/]+\.yaml", EVALUATION))


NUMBERS = {"twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15}
SAID = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "benchmarks").rglob("*.yaml"))]


def test_the_study_has_as_many_arms_wherever_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    arms = len(read_study(ROOT / "benchmarks/miniature/study.yaml").arms)
    found = []
    for path in SAID:
        text = " ".join(path.read_text(encoding="utf-8").split())
        for number in re.findall(r"\b([A-Za-z]+|\d+)(?: of these)? arms\b", text):
            if number.lower() in NUMBERS or number.isdecimal():
                found.append((path.name, NUMBERS.get(number.lower()) or int(number)))
    assert {name for name, _ in found} >= {"README.md", "studies.md", "study.md", "strategies.md"}
    assert {count for _, count in found} == {arms}


def test_the_docs_say_one_thing_of_lora() -> None:
    """The overlay's header, the README, the table of strategies and the study."""
    header = (ROOT / "configs/tuning/lora.yaml").read_text(encoding="utf-8")
    assert "docs/results/study.md" in header
    assert "Not safe for the text by itself" in header
    for told in ("the first thing to try", "forget less"):
        assert told not in header
    assert "**LoRA is no protection.**" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert "**LoRA** is not safe" in (ROOT / "docs/results/study.md").read_text(encoding="utf-8")
    assert "| `LoRA` | `lora.yaml` | memory is short;" in (ROOT / "docs/strategies.md").read_text(encoding="utf-8")


#: What a page's command or class needs, and the words that say so somewhere on the page.
NEEDS = {
    r"^ +textkeep benchmark|\| `textkeep benchmark|TextBenchmarks|InstructionFollowing": "textkeep[lm-eval]",
    r"--figures": "textkeep[figures]",
    r"^ +textkeep dashboard|\| `textkeep dashboard": "textkeep[dashboard]",
    r"^slurm:|SLURM array": "textkeep[slurm]",
    r"with `configs/logger/tensorboard|class_path: TensorBoardLogger": "pip install tensorboard",
    r"\bqlora\.yaml|load_in_4bit": "textkeep[qlora]",
    r"bitsandbytes\.optim": "textkeep[adamw-8bit]",
    r"Kokoro": "textkeep[speak]",
    r"`textkeep facts|^# +textkeep facts": "textkeep assets",
    r"python -m benchmarks\.importance\b": "[bench]",
}
INDEXES = {"security.md", "papers.md"}  # they name everything
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "configs").rglob("*.yaml"))]


@pytest.mark.parametrize("need", NEEDS)
def test_a_command_that_needs_an_extra_says_so(need: str) -> None:
    found = [page for page in PAGES if page.name not in INDEXES and re.search(need, page.read_text(), re.MULTILINE)]
    assert found
    assert [page.name for page in found if NEEDS[need] not in page.read_text()] == []
