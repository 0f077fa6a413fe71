"""Lightning's strategy for FSDP2, with our checkpoints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.collectives.torch_collective import default_pg_timeout
from lightning.pytorch import Trainer
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from typing_extensions import override

from ...foundation.errors import UserError
from ...foundation.ranks import is_sharded
from ...foundation.sharding import gathered, sharded
from .blocks import shard
from .full_state import load_optimizer_state, load_state, map_checkpoint, whole_optimizer_state, whole_state
from .reading import one_rank_reads

COMPUTES_IN = {"bf16-mixed": torch.bfloat16}
"""Precision of the Trainer -> type in which weights are gathered; they are kept in float32."""


class FSDP2(ModelParallelStrategy):
    """Divides weights, gradients and optimizer state among the ranks (FSDP2, arXiv 2304.11277), block by block.

    Each rank trains on batches of its own, as under ``ddp``, and holds its part of the model; a block's weights are
    gathered while it computes. Losses and weights are those of one process. Checkpoints are the same files as
    ``ddp``'s: a run goes on with another number of ranks, under another strategy or in one process.

    Validation, evaluation and measurements of importance gather the whole model while they last: they take its size in
    the type that it computes in on every rank, and no rank waits for another's longer answers.

    Args:
        replicas: Times that the whole is held. 1 divides the model among all ranks; the number of nodes has each node
            hold all of it, so that weights travel inside of nodes alone (HSDP).
        process_group_backend: ``nccl`` or ``gloo``; by default what fits the device.
        timeout: How long ranks wait for each other.

    Raises:
        UserError: If there are less than one replicas, or the ranks cannot be divided among them.
    """

    def __init__(
        self,
        replicas: int = 1,
        process_group_backend: str | None = None,
        timeout: timedelta | None = default_pg_timeout,
    ) -> None:
        super().__init__("auto", 1, False, process_group_backend, timeout)
        if replicas < 1:
            raise UserError(f"FSDP2.replicas: {replicas} (allowed: 1 or more)")
        self.replicas = replicas
        self._whole = ExitStack()

    # ------------------------------------------------------------------ set up

    @override
    def setup_environment(self) -> None:
        ranks = self.num_nodes * self.num_processes
        if ranks % self.replicas:
            raise UserError(f"FSDP2.replicas: {self.replicas} (allowed: what divides the number of ranks, {ranks})")
        self._data_parallel_size = ranks  # Lightning's "auto" is the number of nodes
        super().setup_environment()

    @contextmanager
    @override
    def model_sharded_context(self) -> Iterator[None]:
        """Lets rank zero alone read the weights; :meth:`setup` divides them."""
        module: Any = self.lightning_module
        if is_sharded(module):  # it was trained by a Trainer before
            yield
            return
        with one_rank_reads():
            yield
        self.precision_plugin.convert_module(module)
        if self.is_global_zero:
            module.note_frozen()
        module.digests = self.broadcast(module.digests)

    @override
    def setup(self, trainer: Trainer) -> None:
        module: Any = self.lightning_module
        if not is_sharded(module):  # else it was trained by a Trainer before
            self.precision_plugin.convert_module(module)
            dtype = COMPUTES_IN.get(str(trainer.precision))
            shard(module, [module.llm, module.encoder], self._ranks(), self.root_device, dtype, True)
        super().setup(trainer)

    def _ranks(self) -> DeviceMesh:
        if self.replicas == 1:
            return self.device_mesh["data_parallel"]
        shape = (self.replicas, self.world_size // self.replicas)
        return init_device_mesh(self.root_device.type, shape, mesh_dim_names=("replicate", "shard"))

    # ------------------------------------------------------------------ steps

    @override
    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """Takes a step as a forward pass of the whole module: what lies outside of the blocks is gathered for it."""
        module: Any = self.lightning_module
        with self.precision_plugin.train_step_context():
            return self._forward_redirection(module, module, "training_step", *args, **kwargs)

    def _gather(self) -> None:
        assert self.lightning_module is not None
        self._whole.enter_context(gathered(self.lightning_module))

    def _shard(self) -> None:
        assert self.lightning_module is not None
        self._whole.close()
        sharded(self.lightning_module)

    @override
    def on_validation_start(self) -> None:
        self._gather()

    @override
    def on_validation_end(self) -> None:
        self._shard()

    @override
    def on_test_start(self) -> None:
        self._gather()

    @override
    def on_test_end(self) -> None:
        self._shard()

    @override
    def on_predict_start(self) -> None:
        self._gather()

    @override
    def on_predict_end(self) -> None:
        self._shard()

    # ------------------------------------------------------------------ checkpoints

    @property
    @override
    def restore_checkpoint_after_setup(self) -> bool:
        """Weights are read before they are divided."""
        return False

    @property
    @override
    def lightning_restore_optimizer(self) -> bool:
        return True

    @override
    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        if "://" in str(checkpoint_path):
            return super(ModelParallelStrategy, self).load_checkpoint(checkpoint_path, weights_only)
        return map_checkpoint(checkpoint_path, weights_only)

    @override
    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        assert self.lightning_module is not None
        load_state(self.lightning_module, checkpoint["state_dict"], strict)

    @override
    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            load_optimizer_state(optimizer, state)

    @override
    def lightning_module_state_dict(self) -> dict[str, Tensor]:
        """Gives rank zero what was trained, in whole tensors; the others help, and get nothing."""
        self._shard()
        module: Any = self.lightning_module
        return whole_state(module, module.left_out(), self.is_global_zero)

    @override
    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        inner = optimizer.optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
        return whole_optimizer_state(inner, self.is_global_zero)

    @override
    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any = None) -> None:
        module: Any = self.lightning_module
        # Parts that were built in Python are settings too; those in use are sharded, and cannot be pickled.
        settings, initial = checkpoint.get("hyper_parameters", {}), module.hparams_initial
        checkpoint = {**checkpoint, "hyper_parameters": {name: initial.get(name) for name in settings}}
        super().save_checkpoint(checkpoint, filepath, storage_options)
