"""The README's pictures can be made again."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.support.plain_text_set import write_plain_text
from tests.support.report_run import write_run

ROOT = Path(__file__).resolve().parents[1]

pytestmark = [pytest.mark.slow, pytest.mark.skipif(shutil.which("chromium") is None, reason="no Chromium")]


def test_the_page_of_two_runs_becomes_a_picture(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name, steps=(0, 20), items=20, layers=2) for name in ("quickstart", "gated")]
    for run, change in zip(runs, (0.15, 0.0), strict=True):
        write_plain_text(run, [change * (1 + 0.1 * (i % 3)) for i in range(40)])
    words = [*map(str, runs), "--only", "quickstart.png", "--folder", str(tmp_path)]
    subprocess.run([sys.executable, str(ROOT / "docs/images/pictures.py"), *words], check=True, cwd=tmp_path)
    picture = Image.open(tmp_path / "quickstart.png").convert("RGB")
    assert picture.size == (1280, 770)
    colours = {colour for _, colour in picture.getcolors(1 << 24) or []}
    assert {(0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)} <= colours  # a mark of each run
