"""A run that is logged in to W&B, against a server on loopback."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.processes import Textkeep
from tests.support.wandb_server import KEY, WandbServer

pytestmark = pytest.mark.slow


def test_a_logged_in_run_is_one_w_and_b_run_with_its_config(tiny_config: Path, textkeep: Textkeep) -> None:
    run = tiny_config.parent / "runs" / "t"
    with WandbServer() as server:
        done = textkeep("fit", "--config", tiny_config, **server.environment)
        assert done.returncode == 0, done.stderr
        words = ["--config", run / "config.yaml", "--ckpt_path", "last", "--trainer.max_steps", "5"]
        rest = textkeep("fit", *words, **server.environment)
        assert rest.returncode == 0, rest.stderr
        assert server.unknown == []
        (stored,) = server.runs.values()
    assert "W&B is offline" not in done.stderr + rest.stderr
    assert (stored.project, stored.display, stored.exitcode) == ("textkeep", "t", 0)
    steps = [row["trainer/global_step"] for row in stored.history if "train/loss" in row]
    assert len(steps) == 5
    assert steps == sorted(steps)
    assert [row["_step"] for row in stored.history] == list(range(len(stored.history)))
    assert stored.config["cli"]["value"]["trainer"]["default_root_dir"] == str(run)
    assert b"WhisperEncoder" in stored.files["cli_config.yaml"]
    assert KEY.encode() not in b"".join(stored.files.values())
    assert not [path for path in run.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


def test_no_key_is_written_and_no_question_is_logged(tiny_config: Path, textkeep: Textkeep) -> None:
    keys = {"WANDB_API_KEY": "5ec4e7" * 7, "HF_TOKEN": "hf_5ec4e7token", "WANDB_MODE": "offline"}
    more = tiny_config.with_name("more.yaml")
    more.write_text("trainer:\n  callbacks+:\n    - {class_path: Retention}\n")
    done = textkeep("fit", "--config", tiny_config, "--config", more, **keys)
    assert done.returncode == 0, done.stderr
    run = tiny_config.parent / "runs" / "t"
    written = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and not path.is_symlink()}
    assert not [path for path, content in written.items() if b"5ec4e7" in content]
    assert "5ec4e7" not in done.stdout + done.stderr
    logged = {path.relative_to(run).as_posix(): c for path, c in written.items() if "wandb" in path.parts}
    assert [name for name, content in logged.items() if b"capital of" in content] == []
    kinds = {Path(name).name for name in logged} - {f"run-{path.parent.name[-8:]}.wandb" for path in written}
    assert kinds == {"cli_config.yaml", "output.log", "requirements.txt", "debug.log", "debug-internal.log"}
