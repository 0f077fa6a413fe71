"""Paths that hold what people put into names: blanks, quotes, brackets, umlauts, other scripts, 255 bytes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.processes import Textkeep

ODD = "a run, 'Ümläut' \"q\" [b] {c} (d) 東京 %s $HOME #1;x"
LONGEST = "ü" * 125 + ".wav"  # 254 bytes; a name may have 255


@pytest.mark.slow
def test_a_run_whose_paths_are_odd(
    textkeep: Textkeep, tmp_path: Path, tiny_settings: dict[str, Any], tiny_manifest: Path
) -> None:
    base = tmp_path / ODD
    folders = {
        "llm [1]": tiny_settings["model"]["llm"],
        "ear 'x'": tiny_settings["model"]["encoder"]["init_args"]["source"],
    }
    for name, source in {**folders, "spöken": tiny_manifest.parent}.items():
        shutil.copytree(source, base / name)
    manifest = base / "spöken" / tiny_manifest.name
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    (base / "spöken" / lines[0]["audio"]).rename(base / "spöken" / LONGEST)
    lines[0]["audio"] = LONGEST
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    settings = {
        "trainer": {**tiny_settings["trainer"], "default_root_dir": str(base / ("é" * 127)), "max_steps": 2},
        "model": {
            **tiny_settings["model"],
            "llm": str(base / "llm [1]"),
            "encoder": {"class_path": "WhisperEncoder", "init_args": {"source": str(base / "ear 'x'")}},
        },
        "data": {
            "train": [str(manifest)],
            "val": [str(manifest)],
            "num_workers": 1,
            "feature_cache": str(base / "cäche"),
        },
    }
    (base / "tiny ü.yaml").write_text(yaml.safe_dump(settings))
    for more in ((), ("--ckpt_path", "last", "--trainer.max_steps", "3")):
        done = textkeep("fit", "--config", base / "tiny ü.yaml", *more, WANDB_MODE="offline")
        assert done.returncode == 0, done.stderr
    run = base / ("é" * 127)
    assert (run / "checkpoints/last.ckpt").resolve().name == "step=000003.ckpt"
    assert textkeep("report", run, "-o", base / "r [1].html").returncode == 0
