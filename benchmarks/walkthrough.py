"""Runs a page of the docs as it stands, and writes each command's output below it.

    python -m benchmarks.walkthrough docs/tutorial.md docs/tutorial_analysis.md

The blocks ``bash`` and ``python`` of the pages run one after another in a fresh folder that has ``configs`` in it and
``textkeep`` on the path; the block ``text`` right below one of them is replaced by what it printed. Commands must end
with 0. A picture below ``<!-- from my/plot.png -->`` is replaced by that file of the folder. ``tests/test_tutorial.py``
runs the same blocks.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from textkeep.foundation.files import replacing

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)
PICTURE = re.compile(r"^<!-- from (\S+) -->\n!\[[^\]]*\]\((\S+)\)$", re.MULTILINE)
HEAD, TAIL = 9, 14
"""Lines shown of a longer output, from its start and its end."""


@dataclass(frozen=True)
class Block:
    """One or several commands of a page."""

    language: str
    """``bash`` or ``python``."""
    code: str
    printed: str | None
    """The output that the page shows below it, or None."""


def blocks(page: str) -> list[Block]:
    """Returns the runnable blocks of a page, in order."""
    return [Block(language, code, printed or None) for language, code, printed in BLOCK.findall(page)]


def run(block: Block, folder: Path) -> str:
    """Runs a block in a folder; returns its output, standard error included.

    Raises:
        RuntimeError: If it does not exit with 0.
    """
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    environment = os.environ | {"PATH": path, "COLUMNS": "100", "TQDM_DISABLE": "1"}
    words = ["bash", "-e"] if block.language == "bash" else [sys.executable, "-"]
    done = subprocess.run(
        words,
        input=block.code,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{block.code}\nended with {done.returncode}:\n{done.stdout}")
    return done.stdout


def shown(printed: str) -> str:
    """Returns what a page shows of an output: whole, or its first and last lines; no warning of a library, no home."""
    lines = [line.rstrip() for line in printed.replace(str(Path.home()), "~").split("\n") if line.strip()]
    lines = [line for line in lines if "site-packages" not in line]
    if len(lines) > HEAD + TAIL + 1:
        lines = [*lines[:HEAD], "...", *lines[-TAIL:]]
    return "\n".join(lines) + "\n"


def rewritten(page: str, outputs: list[str]) -> str:
    """Returns the page with these outputs, one a block; a block that printed nothing has none."""
    left = iter(outputs)

    def replaced(found: re.Match[str]) -> str:
        printed = next(left)
        below = f"\n```text\n{shown(printed)}```\n" if printed.strip() else ""
        return f"```{found[1]}\n{found[2]}```\n{below}"

    return BLOCK.sub(replaced, page)


def take_pictures(page: Path, folder: Path) -> None:
    """Puts the pictures that the commands drew where the page shows them."""
    for drawn, shown_at in PICTURE.findall(page.read_text(encoding="utf-8")):
        shutil.copyfile(folder / drawn, page.parent / shown_at)


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", type=Path, nargs="+")
    parser.add_argument("--folder", type=Path, help="an empty folder to run in (default: a temporary one)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "configs").exists():
            (folder / "configs").symlink_to(ROOT / "configs")
        for path in options.pages:
            page = path.read_text(encoding="utf-8")
            outputs = []
            for block in blocks(page):
                started = time.perf_counter()
                outputs.append(run(block, folder))
                print(f"{time.perf_counter() - started:6.1f} s  {block.code.splitlines()[0]}", flush=True)
            with replacing(path) as temporary_page:
                temporary_page.write_text(rewritten(page, outputs), encoding="utf-8")
            take_pictures(path, folder)


if __name__ == "__main__":
    main()
