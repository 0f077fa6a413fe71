"""W&B never stops a run: not without a key, not without a network, not at the end."""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from textkeep.callbacks import ResilientWandbLogger

pytestmark = pytest.mark.slow

KEY = "0123456789abcdef" * 3
PROGRAM = """
import sys
from textkeep.callbacks import ResilientWandbLogger
logger = ResilientWandbLogger(sys.argv[1], init_timeout=5, finish_timeout=5)
for step in range(3):
    logger.log_metrics({"train/loss": 1.0 / (step + 1), "importance/text/taylor/layer_07": 0.1}, step=step)
import wandb
wandb.finish()
"""
HEAT_MAPS = PROGRAM.replace(
    "import wandb\n",
    """
many = {f"importance/text/fisher/layer_{i:02d}": 0.1 for i in range(40)}
logger.log_metrics(many, step=3)
for probe in ("text", "speech"):
    logger.log_heat_map_table(f"importance_media/{probe}/shares", [(0, 1, "taylor", 2.5)], "Shares", 3)
logger.finalize("success")
import wandb
""",
)


def log(folder: Path, program: str = PROGRAM, **environment: str) -> tuple[subprocess.CompletedProcess[str], float]:
    """Logs three steps in a child process; its result and the seconds it took."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")}
    home = {"HOME": str(folder.parent), "WANDB_ERROR_REPORTING": "false", "OMP_NUM_THREADS": "1"}
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)],
        env={**clean, **home, **environment},
        capture_output=True,
        text=True,
        timeout=200,
    )
    return done, time.monotonic() - started


def inspect(folder: Path) -> list[dict[str, Any]]:
    """The records of each W&B log below a run directory, by W&B's own reader."""
    wandb = Path(sys.executable).with_name("wandb")
    found = []
    for path in sorted(folder.glob("wandb/offline-run-*/run-*.wandb")):
        shown = subprocess.run(
            [wandb, "leet", "inspect", "--summary", "--json", path], capture_output=True, text=True, check=True
        )
        found.append(json.loads(shown.stdout))
    return found


def holds_key(folder: Path) -> bool:
    return any(KEY.encode() in path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_without_a_key_it_is_offline_and_one_run_over_two_processes(tmp_path: Path) -> None:
    run = tmp_path / "run"
    outputs = [log(run)[0] for _ in range(2)]
    assert [done.returncode for done in outputs] == [0, 0], outputs[0].stderr
    assert outputs[0].stderr.count("W&B is offline (not logged in)") == 1
    summaries = inspect(run)
    assert len(summaries) == 2
    record = json.loads((run / "wandb_run.json").read_text())
    assert record["project"] == "textkeep"
    assert record["name"] == "run"
    assert all(path.name.endswith(record["id"]) for path in run.glob("wandb/offline-run-*"))
    assert summaries[0]["summary"]["train/loss"] == pytest.approx(1 / 3)


def test_the_command_that_uploads_can_be_pasted(tmp_path: Path) -> None:
    done, _ = log(tmp_path / "it's a run (1)")
    (line,) = [line for line in done.stderr.splitlines() if "wandb sync" in line]
    command = shlex.split(line[line.index("wandb sync") :])
    assert command[:2] == ["wandb", "sync"]
    assert [Path(path).resolve() for path in command[2:]] == list(tmp_path.glob("it*/wandb/offline-run-*"))


def test_a_file_that_cannot_be_written_is_not_called_a_lost_process(tmp_path: Path) -> None:
    spoilt = """
from pathlib import Path
Path(logger.experiment.dir, "media").write_text("in the way of the folder")
logger.log_heat_map_table("importance_media/text/shares", [(0, 1, "taylor", 2.5)], "Shares", 3)
import wandb
"""
    done, _ = log(tmp_path / "run", PROGRAM.replace("import wandb\n", spoilt), WANDB_MODE="offline")
    assert done.returncode == 0, done.stderr
    reasons = [line for line in done.stderr.splitlines() if "W&B is offline (" in line]
    assert len(reasons) == 2, done.stderr
    assert "media" in reasons[1]
    assert "process was lost" not in done.stderr


def test_an_unreachable_server_turns_it_offline_in_bounded_time(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts connections, never answers
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        done, seconds = log(tmp_path / "run", WANDB_BASE_URL=url, WANDB_API_KEY=KEY)
    assert done.returncode == 0, done.stderr
    assert "W&B is offline (" in done.stderr
    assert "not logged in" not in done.stderr
    assert seconds < 120
    assert inspect(tmp_path / "run")[-1]["summary"]["train/loss"] == pytest.approx(1 / 3)
    assert not holds_key(tmp_path / "run")


def test_a_malformed_key_turns_it_offline(tmp_path: Path) -> None:
    done, _ = log(tmp_path / "run", WANDB_API_KEY="short")
    assert done.returncode == 0, done.stderr
    assert "W&B is offline (" in done.stderr


def test_disabled_means_disabled(tmp_path: Path) -> None:
    done, _ = log(tmp_path / "run", WANDB_MODE="disabled", WANDB_API_KEY=KEY)
    assert done.returncode == 0, done.stderr
    assert not list((tmp_path / "run").glob("wandb/*run-*"))
    assert not (tmp_path / "run" / "wandb_run.json").exists()  # it has no id to go on with


def test_an_unknown_mode_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offlin")
    with pytest.raises(ValueError, match="WANDB_MODE: 'offlin' is none; allowed: online, offline"):
        ResilientWandbLogger(tmp_path).log_metrics({"a": 1.0})


@pytest.mark.parametrize("content", ["", "{", "[]", '{"id": 3}', '{"id": ""}', '{"name": "x"}', "\xff"])
def test_a_damaged_record_of_the_run_is_told_and_left_behind(content: str, tmp_path: Path) -> None:
    path = tmp_path / "wandb_run.json"
    path.write_text(content, encoding="latin-1")
    with pytest.warns(UserWarning, match=r"wandb_run\.json is damaged: W&B gets a new run"):
        assert ResilientWandbLogger(tmp_path)._id is None
    path.write_text('{"id": "abc"}')
    assert ResilientWandbLogger(tmp_path)._id == "abc"


def test_the_only_glob_is_over_the_global_step(tmp_path: Path) -> None:
    log(tmp_path / "run")
    path = next((tmp_path / "run").glob("wandb/offline-run-*/run-*.wandb"))
    wandb = Path(sys.executable).with_name("wandb")
    shown = subprocess.run([wandb, "leet", "inspect", "--json", path], capture_output=True, text=True, check=True)
    metrics = [json.loads(line) for line in shown.stdout.splitlines() if "metric" in line.lower()]
    text = json.dumps(metrics)
    assert text.count('"*"') == 1
    assert "trainer/global_step" in text


def records(folder: Path) -> str:
    """What W&B's own reader tells of the one run below a directory."""
    (path,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    wandb = Path(sys.executable).with_name("wandb")
    return subprocess.run([wandb, "leet", "inspect", "--json", path], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("entity", ["", "a-team"])
def test_heat_maps_have_a_chart_where_an_entity_is_known(tmp_path: Path, entity: str) -> None:
    known = {"WANDB_ENTITY": entity} if entity else {}
    done, _ = log(tmp_path / "run", HEAT_MAPS, WANDB_MODE="offline", **known)
    assert done.returncode == 0, done.stderr
    text = records(tmp_path / "run")
    assert "importance_media/speech/shares_table" in text
    assert ("a-team/textkeep_heat_map" in text) == bool(entity)
    assert ("textkeep_heat_map" in text) == bool(entity)
    assert done.stderr.count("W&B: no entity is known") == (0 if entity else 1)


def test_many_new_names_are_all_defined_by_their_exact_names(tmp_path: Path) -> None:
    log(tmp_path / "run", HEAT_MAPS)
    text = records(tmp_path / "run")
    defined = [line for line in text.splitlines() if "metric" in line.lower() and "step_metric" in line.lower()]
    for i in range(40):
        assert any(f"importance/text/fisher/layer_{i:02d}" in line for line in defined), i
