"""What docs/studies.md and docs/evaluation.md show is accepted by the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from textkeep import callbacks
from textkeep.cli.study.spec import read_study

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
