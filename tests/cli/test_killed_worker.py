"""A data worker that is killed in the middle of an optimizer step: one line, and the run goes on as if nothing were."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.processes import Textkeep
from textkeep.foundation.run_names import TRAIN_LOSS

KILLER = """
import multiprocessing, os, signal, time
from lightning.pytorch import Callback


class KillWorkers(Callback):
    def on_before_optimizer_step(self, trainer, *args):
        if trainer.global_step == 4 and not os.path.exists("killed"):
            open("killed", "w").close()
            for worker in multiprocessing.active_children():
                os.kill(worker.pid, signal.SIGKILL)
            time.sleep(1)  # torch would raise here, between the gradients and the step
"""


@pytest.mark.slow
def test_a_killed_worker_costs_nothing(textkeep: Textkeep, tiny_settings: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "killer.py").write_text(KILLER)
    settings = {
        **tiny_settings,
        "trainer": {
            **tiny_settings["trainer"],
            "max_steps": 8,
            "logger": {"class_path": "RunCSVLogger"},
            "limit_val_batches": 0,
            "callbacks": [{"class_path": "killer.KillWorkers"}],
        },
        "data": {**tiny_settings["data"], "num_workers": 2, "max_examples_per_batch": 1},
    }
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(settings))

    def fit(run: str, *more: str) -> Any:
        words = ("fit", "--config", "c.yaml", "--trainer.default_root_dir", run, *more)
        return textkeep(*words, PYTHONPATH=str(tmp_path))

    died = fit("died")
    assert died.returncode == 1, died.stderr
    told = [line for line in died.stderr.splitlines() if line.startswith("textkeep: error: ")]
    assert len(told) == 1
    assert "was killed (SIGKILL: usually by the system when it runs out of memory)" in told[0]
    assert "Traceback" not in died.stderr
    assert (tmp_path / "died/checkpoints/last.ckpt").resolve().name > "step=000004.ckpt"  # the step was done first
    assert fit("died", "--ckpt_path", "last").returncode == 0
    assert fit("whole").returncode == 0

    def losses(run: str) -> list[str]:
        with (tmp_path / run / "metrics.csv").open() as file:
            return [row[TRAIN_LOSS] for row in csv.DictReader(file) if row.get(TRAIN_LOSS)]

    assert losses("died") == losses("whole")
    assert len(losses("whole")) == 8
