"""The first steps of the real quickstart, and the command that records what they gave.

    python -m tests.quickstart.first_steps

trains ``configs/quickstart.yaml`` for some steps, without the callbacks that cost minutes, and writes loss, tokens and
gradient norm of each step to ``recorded.json``. Record anew only after a change that is meant to move them, and say so
in the commit. Needs the assets of ``textkeep assets`` and about 5 GiB.
"""

from __future__ import annotations

import json
import platform
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

ROOT = Path(__file__).parents[2]
RECORDED = Path(__file__).with_name("recorded.json")
STEPS = 4


class StepRecorder(Callback):
    """Keeps loss, answer tokens and gradient norm of each optimizer step.

    Attributes:
        steps: One entry a step.
    """

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []
        self._norm = 0.0

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        """The norm before clipping, over all trained parameters."""
        gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
        self._norm = float(torch.stack([gradient.double().norm() for gradient in gradients]).norm())

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """The loss as it is logged, and the answer tokens of the batch."""
        loss = float(trainer.callback_metrics["train/loss"])
        tokens = int((batch.labels[:, 1:] != -100).sum())
        self.steps.append({"loss": loss, "tokens": tokens, "gradient_norm": self._norm})


def first_steps(folder: Path) -> list[dict[str, float]]:
    """Trains the quickstart's first steps through the command line's own classes.

    Args:
        folder: Gets the run directory.

    Returns:
        Loss, tokens and gradient norm, a step each.
    """
    from textkeep.cli.lightning_cli import RunState, TextKeepCLI, register_classes

    register_classes()
    recorder = StepRecorder()
    words = ["fit", "--config", str(ROOT / "configs/quickstart.yaml")]
    words += ["--trainer.default_root_dir", str(folder / "run")]
    words += ["--trainer.max_steps", "60", "--trainer.log_every_n_steps", "1", "--trainer.logger", "false"]
    words += ["--trainer.limit_val_batches", "0", "--trainer.enable_checkpointing", "false"]
    words += ["--trainer.callbacks", json.dumps([])]

    class FirstSteps(TextKeepCLI):
        """Stops after ``STEPS``: the schedule of the learning rate is that of all 60."""

        def instantiate_trainer(self, **kwargs: Any) -> Trainer:
            trainer = super().instantiate_trainer(**kwargs)
            trainer.callbacks += [recorder, _Stop()]  # type: ignore[attr-defined]
            return trainer

    FirstSteps(words, RunState())
    return recorder.steps


class _Stop(Callback):
    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        trainer.should_stop = trainer.global_step >= STEPS


def record() -> int:
    """Writes ``recorded.json``."""
    with tempfile.TemporaryDirectory() as folder:
        steps = first_steps(Path(folder))
    made = {"torch": version("torch"), "transformers": version("transformers"), "machine": platform.machine()}
    RECORDED.write_text(json.dumps({"made_with": made, "steps": steps}, indent=1) + "\n")
    print(f"{RECORDED.relative_to(ROOT)}: {len(steps)} steps")
    return 0


if __name__ == "__main__":
    sys.exit(record())
