"""Ends a run at one of its earlier steps."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor
from typing_extensions import override

from ...foundation.errors import UserError
from ...foundation.ranks import share_rank_zero
from ...foundation.run_names import step_of
from ..saving.checkpoint import RunCheckpoint
from .budget_action import BudgetAction, Reading


class RollBackToCheckpoint(BudgetAction):
    """Ends a run that is over its budget with its newest checkpoint within the budget: all weights are of that step.

    The early stopping of a run that was not stopped early: of the steps that were saved, the last one inside the budget
    has learned the most speech. Checkpoints are measured from the newest to the oldest, until one is inside; which one
    it was is said and logged as ``budget/<text>/back_to_step``. If none is, the weights stay, and ``RollBack`` after it
    in the list finds a point between them and the untouched LLM. Unlike there, encoder and adaptor go back too, and no
    second LLM is loaded. The run's last checkpoint holds these weights; the optimizer's moments stay those of the run.

    Needs a ``RunCheckpoint`` that keeps several files (``save_top_k`` -1, or 2 and more).
    """

    def __init__(self) -> None:
        self._step: int | None = None

    @override
    def start(self, pl_module: LightningModule) -> None:
        if not any(saving.save_top_k not in (0, 1) for saving in _savings(pl_module.trainer)):
            raise UserError(
                "RollBackToCheckpoint needs several checkpoints of the run (allowed: RunCheckpoint with save_top_k -1, "
                "or 2 and more)"
            )

    @override
    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._step = None

    @override
    def finish(
        self, trainer: Trainer, pl_module: LightningModule, last: Reading, measure: Callable[[], Reading]
    ) -> bool:
        if not last.over:
            return False
        own = {name: tensor.detach().clone() for name, tensor in pl_module.state_dict().items()}
        for step, path in self._saved(trainer, last.step):
            if not _load(trainer, pl_module, path):
                continue
            try:
                found = measure()
            except BaseException:  # the ranks have agreed to stop: it comes again when the run goes on
                _put(pl_module, own)
                raise
            if not found.over:
                self._step = step
                said = f"{found.increase:+.3g} nats/token of {last.allowed:g}, after {last.increase:+.3g}"
                rank_zero_info(f"text budget: step {last.step} ends with the weights of step {step}: {said}")
                return True
        _put(pl_module, own)
        rank_zero_warn("text budget: no checkpoint of the run is inside the budget; its last weights stay")
        return False

    @override
    def figures(self) -> dict[str, float]:
        return {} if self._step is None else {"back_to_step": float(self._step)}

    @staticmethod
    def _saved(trainer: Trainer, before: int) -> Iterator[tuple[int, Path]]:
        """Yields step and file of the checkpoints before a step, the newest first, as rank zero sees them."""
        folders = {Path(str(saving.dirpath)) for saving in _savings(trainer)}
        files = {path for folder in folders for path in folder.glob("step=*.ckpt")}
        known = {step: path for path in files if (step := step_of(path.stem)) is not None and step < before}
        yield from sorted(trainer.strategy.broadcast(known).items(), reverse=True)


def _savings(trainer: Trainer) -> list[RunCheckpoint]:
    return [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, RunCheckpoint)]


def _load(trainer: Trainer, pl_module: LightningModule, path: Path) -> bool:
    """Returns the module the weights of a file, which rank zero reads for all; tells whether it could."""
    state: dict[str, Tensor] = {}
    if trainer.is_global_zero:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)["state_dict"]
        except (OSError, RuntimeError, KeyError, pickle.UnpicklingError) as error:
            rank_zero_warn(f"text budget: {path} cannot be read and is passed over: {str(error).splitlines()[0]}")
    names = trainer.strategy.broadcast(sorted(state))
    _put(pl_module, state)
    held = pl_module.state_dict()
    share_rank_zero(held[name] for name in names)
    return bool(names)


@torch.no_grad()
def _put(pl_module: LightningModule, state: dict[str, Tensor]) -> None:
    """Copies values into the module's own tensors."""
    held = pl_module.state_dict()
    for name, tensor in state.items():
        held[name].copy_(tensor)
