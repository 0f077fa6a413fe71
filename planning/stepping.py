"""An optimizer step as the Trainer takes it, for a model that no Trainer has: rehearsed without data, or for real."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..datamodules.batches.batch import Batch
from ..foundation.ranks import is_sharded
from ..lightning_modules import SpeechLLM
from ..lightning_modules.optimization import build_optimizer
from ..lightning_modules.precision import default_dtype

SOME_STEPS = 1000  # of the schedule, which needs an end
AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
WEIGHTS_IN = {"bf16-true": torch.bfloat16, "16-true": torch.float16, "64-true": torch.float64}


@dataclass(frozen=True)
class TrainerSettings:
    """The Trainer's settings that determine the memory and time of a step.

    Attributes:
        precision: As Lightning names it.
        accumulate: Batches of a step.
        clip: Largest norm of the gradient, or None.
        gpu: Whether the run is for GPUs, where optimizers work on all weights at once unless they are told otherwise.
        replicas: Times that ranks which share the weights out hold the whole (``FSDP2``); None: each rank holds it all.
        reshard_after_forward: Of ``FSDP2``: whether a block is freed between its forward and its backward pass.
    """

    precision: str
    accumulate: int
    clip: float | None
    gpu: bool
    replicas: int | None = None
    reshard_after_forward: bool = True

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights."""
        return WEIGHTS_IN.get(self.precision, torch.float32)

    @contextmanager
    def weights(self) -> Iterator[None]:
        """Gives weights the type of the run within the context."""
        with default_dtype(self.dtype):
            yield

    @contextmanager
    def forward(self, device: str) -> Iterator[None]:
        """Has a forward pass compute in the type of the run."""
        cast = AUTOCAST.get(self.precision)
        # of the same size; on a CPU float16 is a type that autocast may lack
        cast = torch.bfloat16 if cast is not None and device == "cpu" else cast
        with torch.autocast(device, cast, enabled=cast is not None), default_dtype(self.dtype):
            yield


class Stepping:
    """Takes optimizer steps.

    Args:
        model: With its weights, or their shapes.
        settings: Of the Trainer.
    """

    def __init__(self, model: SpeechLLM, settings: TrainerSettings) -> None:
        self.model, self.settings = model, settings
        groups = model.tuning.parameter_groups(model.llm, model.encoder, model.adaptor)
        extra = list(model.objectives.parameters())
        made: Any = build_optimizer(model.optimizer_factory, groups, extra, model.schedule, SOME_STEPS)
        self.optimizer: torch.optim.Optimizer = made["optimizer"]
        model.tuning.attach_to_optimizer(model.llm, self.optimizer)
        for group in self.optimizer.param_groups if settings.gpu else ():
            if group.get("foreach", ...) is None and not group.get("fused"):
                group["foreach"] = True  # torch's choice for CUDA

    @property
    def trained(self) -> list[nn.Parameter]:
        """The parameters that the optimizer moves."""
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    @property
    def state(self) -> list[torch.Tensor]:
        """The tensors of the optimizer's state."""
        return [value for kept in self.optimizer.state.values() for value in kept.values() if torch.is_tensor(value)]

    def batch(self, batch: Batch) -> None:
        """Runs one batch forward and backward."""
        self.model.train()
        with self.settings.forward(self._device):
            loss = self._loss(batch)
        loss.backward()

    def _loss(self, batch: Batch) -> torch.Tensor:
        """Returns a batch's loss; with shared-out weights in a forward pass of the whole module, as FSDP2 takes it."""
        if not is_sharded(self.model):
            return self.model.step_total(batch).loss
        self.model.forward = lambda: self.model.step_total(batch).loss  # type: ignore[method-assign, misc]
        try:
            loss: torch.Tensor = self.model()
            return loss
        finally:
            del self.model.forward  # that of its class is back

    def step(self) -> None:
        """Lets the optimizer step, as at the end of accumulation."""
        model = self.model
        model.objectives.add_penalty_gradients(model)
        model.tuning.edit_gradients(model.llm)
        if self.settings.clip:
            torch.nn.utils.clip_grad_norm_(self.trained, self.settings.clip)
        self.optimizer.step()

    def forget(self) -> None:
        """Frees the gradients, as :meth:`SpeechLLM.optimizer_step` does after the step."""
        self.optimizer.zero_grad()

    @property
    def _device(self) -> str:
        return next(self.model.parameters()).device.type
