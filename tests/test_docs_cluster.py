"""What docs/cluster.md says of job scripts, commands and exit codes is so; tests/cluster runs what it describes."""

from __future__ import annotations

import re
import shlex

import pytest

from benchmarks.soak import __main__ as soak
from tests.support.house import ROOT
from textkeep.foundation import errors

PAGE = (ROOT / "docs/cluster.md").read_text(encoding="utf-8")
SCRIPT = (ROOT / "configs/trainer/job.sh").read_text(encoding="utf-8")


def table(section: str) -> list[str]:
    """The first cells of the table of a section."""
    text = re.split(rf"^## {re.escape(section)}\n", PAGE, flags=re.MULTILINE)[1].partition("\n## ")[0]
    return re.findall(r"^\| ([^|]*?) \| ", text, re.MULTILINE)[2:]


def test_every_line_that_is_explained_stands_in_the_script() -> None:
    words = [word for cell in table("SLURM") for word in re.findall(r"`([^`]+)`", cell)]
    assert len(words) > 6
    assert [word for word in words if word not in SCRIPT] == []
    options = re.findall(r"^#SBATCH (--[\w-]+)", SCRIPT, re.MULTILINE)
    assert set(options) - {word.partition("=")[0] for word in words} == {
        "--job-name", "--cpus-per-task", "--time", "--output"
    }  # fmt: skip
    assert SCRIPT.splitlines()[-1].startswith("srun ")


def test_the_exit_codes_are_those_of_the_code() -> None:
    said = {int(cell) for cell in table("Exit codes")}
    own = {errors.FAILED, errors.USAGE_ERROR, errors.INTERRUPTED, errors.TERMINATED}
    assert said == own | {0, 137}  # and 128 + SIGKILL


@pytest.mark.parametrize("words", re.findall(r"^    python -m benchmarks\.soak ([^#\n]*)", PAGE, re.MULTILINE))
def test_the_commands_of_soak_exist(words: str) -> None:
    assert soak._parser().parse_args(shlex.split(words)).kills > 0


def test_what_sbatch_is_given_exists() -> None:
    found = re.findall(r"^    sbatch (.*)", PAGE, re.MULTILINE)
    assert found
    for words in found:
        script = next(word for word in words.split() if not word.startswith("-"))
        assert (ROOT / script).is_file()
