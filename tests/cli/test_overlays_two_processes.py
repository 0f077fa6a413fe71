"""Under DDP the ranks have the same weights, bit for bit, after training with every strategy and objective."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.overlays import OVERLAYS, overlay_name, prepare, rank_environment, tiny_overlay
from tests.support.ports import free_port


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ranks_agree(tiny_settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for overlay in OVERLAYS:
        prepare(overlay, tiny_settings)
    tiny = tiny_overlay(tiny_settings, tmp_path, 3, [{"class_path": "tests.support.overlays.RankDigest"}])
    port = int(free_port())
    line = [sys.executable, "-m", "tests.support.ddp_overlays", str(tmp_path), str(tiny), *map(str, OVERLAYS)]
    logs = [tmp_path / f"rank{rank}.log" for rank in range(2)]
    ranks = []
    for rank, log in enumerate(logs):
        with log.open("w") as file:
            ranks.append(
                subprocess.Popen(
                    line, cwd=tmp_path, env=rank_environment(rank, port), stdout=file, stderr=subprocess.STDOUT
                )
            )
    try:
        codes = [process.wait(timeout=850) for process in ranks]
    finally:
        for process in ranks:
            process.kill()
    assert codes == [0, 0], "\n".join(log.read_text()[-2000:] for log in logs)
    for overlay in OVERLAYS:
        folder = tmp_path / overlay_name(overlay).replace("/", "_") / "digests"
        before, after = (
            [(folder / f"{when}-rank{rank}").read_text() for rank in (0, 1)] for when in ("before", "after")
        )
        assert before[0] == before[1], overlay
        assert after[0] == after[1], overlay
        assert before[0] != after[0], overlay
