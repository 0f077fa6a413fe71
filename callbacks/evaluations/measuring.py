"""What callbacks that score a model share: they leave no trace, know the step, and write to one place."""

from __future__ import annotations

from collections.abc import Collection, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.seed import isolate_rng

from ...evaluation import read_lines
from ...foundation import run_names
from ...foundation.decoder import eval_mode
from ...foundation.sharding import gathered


@runtime_checkable
class KeepsRecords(Protocol):
    """A callback that writes a file of answers in a validation, test or prediction."""

    def would_lose(self, trainer: Trainer) -> str | None:
        """Says which earlier results would be lost; None if none. Called before anything is run."""
        ...


@contextmanager
def scoring(pl_module: LightningModule) -> Generator[None, None, None]:
    """Sets eval mode, without gradients or inference tensors (training may use a cache filled here); puts all back.

    Weights that are sharded are gathered: each rank may read and write as much as its items take.
    """
    with gathered(pl_module), isolate_rng(), torch.inference_mode(False), torch.no_grad(), eval_mode(pl_module):
        yield


def measured_step(trainer: Trainer, loaded_step: int | None) -> int:
    """Returns the optimizer step of the weights at hand.

    Args:
        trainer: Counts the steps of a fit.
        loaded_step: That of the checkpoint that was loaded to be validated or tested, if a callback was told it.
    """
    if trainer.state.fn == TrainerFn.FITTING:
        return trainer.global_step
    if loaded_step is not None:
        return loaded_step
    # A checkpoint saved without callback states tells callbacks nothing, but its name does.
    named = run_names.step_of(str(trainer.ckpt_path or ""))
    return trainer.global_step if named is None else named


def evaluation_folder(trainer: Trainer, stage: str) -> Path | None:
    """Returns where records go; nowhere in a trial run (``fast_dev_run``)."""
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        return None
    return run_names.evaluation_folder(Path(trainer.default_root_dir), stage)


def lost_records(path: Path, ids: Collection[str], modalities: Collection[str]) -> str | None:
    """Returns whether a file of records holds questions other than those that would replace them.

    Args:
        path: The file, which need not be there.
        ids: Of the items that are going to be asked.
        modalities: In which they are going to be asked.

    Returns:
        What would be lost, in words; None if nothing.
    """
    if not path.is_file():
        return None
    rows = [row for _, row in read_lines(path)]
    lost = [row for row in rows if row.get("id") not in ids or row.get("modality") not in (None, *modalities)]
    held = len({row.get("id") for row in rows})
    return f"{path} holds answers to {held} questions already, and {len(ids)} would be asked" if lost else None
