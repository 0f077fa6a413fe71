"""The tutorials' commands are real: read (quick), and run as they stand on the small models (slow)."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from benchmarks.walkthrough import Block, blocks, rewritten, shown, take_pictures
from tests.support.house import ROOT
from textkeep.cli.main import VERBS, main

PAGES = {name: (ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("tutorial.md", "tutorial_analysis.md")}
BLOCKS = [block for page in PAGES.values() for block in blocks(page)]
HEREDOC = re.compile(r"^cat > (\S+) <<'END'\n(.*?)^END\n", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^textkeep ((?:.*\\\n)*.*)$", re.MULTILINE)


def commands() -> list[list[str]]:
    return [shlex.split(words.replace("\\\n", " ")) for block in BLOCKS for words in COMMAND.findall(block.code)]


def test_every_command_shows_what_it_prints() -> None:
    assert len(BLOCKS) > 10
    silent = [
        block.code for block in BLOCKS if not block.printed and not HEREDOC.sub("", block.code).startswith("mkdir")
    ]
    assert silent == []


def test_it_goes_the_whole_way() -> None:
    verbs = [words[0] for words in commands()]
    assert verbs[:9] == ["assets", "speak", "fit", "adaptor", "fit", "report", "ask", "export", "importance"]
    assert set(verbs) <= set(VERBS)
    files = [word for words in commands() for word in words if word.startswith("configs/")]
    assert all((ROOT / name).is_file() for name in files)


def test_its_files_are_what_they_seem() -> None:
    written = {name: text for block in BLOCKS for name, text in HEREDOC.findall(block.code)}
    lines = [
        json.loads(line) for name, text in written.items() if name.endswith(".jsonl") for line in text.splitlines()
    ]
    assert len({line["id"] for line in lines}) == len(lines) == 16
    assert all(answer in line["target"] for line in lines for answer in line["answers"])
    configs = [yaml.safe_load(text) for name, text in written.items() if name.endswith(".yaml")]
    assert all(set(config) == {"trainer", "model", "data"} for config in configs)


def test_a_page_is_read_and_written_again() -> None:
    page = "A\n\n```bash\ntrue\n```\n\n```text\nold\n```\n\n```python\nprint(1)\n```\n\nB\n"
    assert blocks(page) == [Block("bash", "true\n", "old\n"), Block("python", "print(1)\n", None)]
    assert (
        rewritten(page, ["", "1\n"]) == "A\n\n```bash\ntrue\n```\n\n```python\nprint(1)\n```\n\n```text\n1\n```\n\nB\n"
    )
    assert shown(f"{Path.home()}/a\n/x/site-packages/y.py:1: W\n") == "~/a\n"
    assert shown("".join(f"{n}\n" for n in range(100))).split("\n")[8:11] == ["8", "...", "86"]


def test_pictures_go_where_the_page_shows_them(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/a.png").write_bytes(b"new")
    page = tmp_path / "page.md"
    page.write_text("<!-- from a.png -->\n![A](b.png)\n\n![C](c.png)\n")
    take_pictures(page, tmp_path / "run")
    assert (tmp_path / "b.png").read_bytes() == b"new"
    assert not (tmp_path / "c.png").exists()


def carry_out(block: Block, folder: Path) -> None:
    """Runs a block as a shell and Python would, ``textkeep`` in this process, which has imported what it needs."""
    if block.language == "python":
        exec(block.code, {})
        return
    parts = COMMAND.split(block.code)
    for number, part in enumerate(parts):
        if number % 2:
            assert main(shlex.split(part.replace("\\\n", " "))) == 0, part
        elif part.strip():
            subprocess.run(["bash", "-e"], input=part, text=True, check=True, cwd=folder)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_tutorials_run_as_they_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    printed = {}
    for block in BLOCKS:
        carry_out(block, tmp_path)
        printed[block.code] = capsys.readouterr().out
    (asked,) = (out for code, out in printed.items() if "textkeep ask " in code)
    (plain,) = (out for code, out in printed.items() if "AutoModelForCausalLM" in code)
    answers = [line.strip() for line in asked.splitlines() if line.startswith("  ")]
    assert len(answers) == 2
    assert "nine" in answers[1]
    assert plain.strip() == answers[1]  # LoRA merged into the folder answers as the run does
    assert (tmp_path / "outputs/my/report.html").is_file()
    assert (tmp_path / "my/compare.png").is_file()
