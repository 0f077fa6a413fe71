"""Studies of real runs of tiny models (slow)."""

from __future__ import annotations

import copy
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.processes import child_environment, command
from tests.support.study_children import states, wait_for


@pytest.fixture
def real_plan(tiny_settings: dict[str, Any], tmp_path: Path) -> Path:
    """Full fine-tuning, adaptor only, and an arm that cannot be."""
    settings = copy.deepcopy(tiny_settings)
    settings["trainer"] |= {"callbacks": [{"class_path": "Retention"}], "max_steps": 150, "enable_progress_bar": False}
    settings["trainer"] |= {"check_val_every_n_epoch": None, "val_check_interval": 50}
    settings["data"]["tokens_per_batch"] = 80
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(settings))
    arms = {
        "full": None,
        "broken": {"set": {"model.tuning": "NoSuchTuning"}},
        "adaptor": {"set": {"model.tuning": "AdaptorOnly"}},
    }
    plan = {"directory": "s", "configs": ["base.yaml"], "arms": arms, "seeds": [0]}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan, sort_keys=False))
    return tmp_path / "plan.yaml"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_study_of_real_runs_is_interrupted_continued_and_reported(real_plan: Path, tmp_path: Path) -> None:
    environment = child_environment(HOME=str(tmp_path), PYTHONPATH=os.environ.get("PYTHONPATH", ""))
    words = command("study", real_plan)
    run = tmp_path / "s/runs/full/seed=0"
    process = subprocess.Popen(words, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)
    wait_for(lambda: (run / "metrics.csv").is_file(), 240)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=240)
    assert process.returncode == 130, out
    assert states(tmp_path / "s")["full,seed=0"]["status"] == "interrupted"
    stopped = [path for path in (run / "checkpoints").glob("step=*.ckpt") if not path.is_symlink()]
    assert stopped
    again = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
    assert again.returncode == 1, again.stdout + again.stderr
    assert "full,seed=0: continuing" in again.stdout
    assert "failed: broken,seed=0: textkeep: error:" in again.stdout
    found = {name: state["status"] for name, state in states(tmp_path / "s").items()}
    assert found == {
        "untouched": "finished",
        "full,seed=0": "finished",
        "broken,seed=0": "failed",
        "adaptor,seed=0": "finished",
    }
    assert (run / "checkpoints/last.ckpt").resolve().name == "step=000150.ckpt"
    reported = subprocess.run(
        command("report", "s"), cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert reported.returncode == 0, reported.stderr
    assert "Differences to untouched" in (tmp_path / "s/tables.md").read_text()
