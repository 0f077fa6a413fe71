"""Lightning's strategy for FSDP2, with our checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

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
from ...foundation.sharded_checkpoint import is_sharded_checkpoint, read_sharded
from ...foundation.sharding import gathered, sharded
from .blocks import shard
from .full_state import load_optimizer_state, load_state, map_checkpoint, own_state, whole_optimizer_state, whole_state
from .reading import one_rank_reads
from .sharded_saving import ShardedSaving

COMPUTES_IN = {"bf16-mixed": torch.bfloat16}
"""Precision of the Trainer -> type in which weights are gathered; they are kept in float32."""


class FSDP2(ModelParallelStrategy):
    """Divides weights, gradients and optimizer state among the ranks (FSDP2, arXiv 2304.11277), block by block.

    Each rank trains on batches of its own, as under ``ddp``, and holds its part of the model; a block's weights are
    gathered while it computes. Losses and weights are those of one process. Checkpoints hold what those of ``ddp`` do:
    a run goes on with another number of ranks, under another strategy or in one process, whichever way they are kept.

    Validation, evaluation and measurements of importance gather the whole model while they last: they take its size in
    the type that it computes in on every rank, and no rank waits for another's longer answers.

    Args:
        replicas: Times that the whole is held. 1 divides the model among all ranks; the number of nodes has each node
            hold all of it, so that weights travel inside of nodes alone (HSDP).
        checkpoints: ``whole`` gathers one file on rank zero, for which training waits. ``sharded`` makes a folder of
            safetensors files in which each rank writes its own part, while training goes on; it takes the size of that
            part in CPU memory, and a disk that all nodes see.
        reshard_after_forward: Whether a block is freed between its forward and its backward pass, and gathered again.
            False keeps the blocks until the backward pass: less traffic, and the memory of the whole model.
        process_group_backend: ``nccl`` or ``gloo``; by default what fits the device.
        timeout: How long ranks wait for each other.

    Raises:
        UserError: If there are less than one replicas, the ranks cannot be divided among them, or checkpoints are to
            be kept in another way.
    """

    def __init__(
        self,
        replicas: int = 1,
        checkpoints: Literal["whole", "sharded"] = "whole",
        reshard_after_forward: bool = True,
        process_group_backend: str | None = None,
        timeout: timedelta | None = default_pg_timeout,
    ) -> None:
        super().__init__("auto", 1, False, process_group_backend, timeout)
        if replicas < 1:
            raise UserError(f"FSDP2.replicas: {replicas} (allowed: 1 or more)")
        if checkpoints not in ("whole", "sharded"):
            raise UserError(f"FSDP2.checkpoints: {checkpoints} (allowed: whole, sharded)")
        self.replicas = replicas
        self.checkpoints = checkpoints
        self.timeout = timeout
        self.reshard_after_forward = reshard_after_forward
        self._saving: ShardedSaving | None = None
        self._read_from: Path | None = None
        self._whole = ExitStack()

    # ------------------------------------------------------------------ set up

    @override
    def setup_environment(self) -> None:
        ranks = self.num_nodes * self.num_processes
        if ranks % self.replicas:
            raise UserError(f"FSDP2.replicas: {self.replicas} (allowed: what divides the number of ranks, {ranks})")
        self._data_parallel_size = ranks  # Lightning's "auto" is the number of nodes
        super().setup_environment()
        if self.checkpoints == "sharded" and self._saving is None:
            self._saving = ShardedSaving(self.timeout)

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
            shard(
                module, [module.llm, module.encoder], self._ranks(), self.root_device, dtype, self.reshard_after_forward
            )
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
        self._read_from = None
        if is_sharded_checkpoint(checkpoint_path):
            self._read_from = Path(checkpoint_path)
            return self._load_shards(self._read_from, weights_only)
        if "://" in str(checkpoint_path):
            return super(ModelParallelStrategy, self).load_checkpoint(checkpoint_path, weights_only)
        return map_checkpoint(checkpoint_path, weights_only)

    def _load_shards(self, folder: Path, weights_only: bool | None) -> dict[str, Any]:
        """Reads whole weights where they are asked for: on rank zero, which shares them out; else shapes alone.

        The optimizer's state is read when the optimizer is there, by each rank its part.
        """
        assert self.lightning_module is not None
        found = read_sharded(folder, weights_only, values=False)
        if self.is_global_zero or is_sharded(self.lightning_module):
            found["state_dict"] = read_sharded(folder, weights_only, optimizer=False)["state_dict"]
        return found

    @override
    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        assert self.lightning_module is not None
        load_state(self.lightning_module, checkpoint["state_dict"], strict)

    @override
    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        for index, (optimizer, state) in enumerate(zip(self.optimizers, checkpoint["optimizer_states"], strict=True)):
            load_optimizer_state(optimizer, state, self._read_from, index)

    @override
    def lightning_module_state_dict(self) -> dict[str, Tensor]:
        """Gives rank zero what was trained, in whole tensors; the others help, and get nothing.

        For a sharded checkpoint each rank gets its parts.
        """
        self._shard()
        module: Any = self.lightning_module
        if self._saving is not None:
            return own_state(module, module.left_out())
        return whole_state(module, module.left_out(), self.is_global_zero)

    @override
    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        inner = optimizer.optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
        if self._saving is not None:
            return inner.state_dict()
        return whole_optimizer_state(inner, self.is_global_zero)

    @override
    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any = None) -> None:
        module: Any = self.lightning_module
        # Parts that were built in Python are settings too; those in use are sharded, and cannot be pickled.
        settings, initial = checkpoint.get("hyper_parameters", {}), module.hparams_initial
        checkpoint = {**checkpoint, "hyper_parameters": {name: initial.get(name) for name in settings}}
        if self._saving is None:
            super(ModelParallelStrategy, self).save_checkpoint(checkpoint, filepath, storage_options)
        else:
            self._saving.write(checkpoint, Path(self.broadcast(str(filepath))))

    def after_saving(self, action: Callable[[], None]) -> None:
        """Runs an action once the last saved checkpoint is on the disk; never, if it cannot be written.

        Args:
            action: Of one rank; no other rank may be asked anything in it.
        """
        if self._saving is None:
            action()
        else:
            self._saving.after(action)

    def finish_saving(self) -> None:
        """Waits until the last saved checkpoint is on the disk; every rank must call it.

        Raises:
            RunError: If it could not be written, on all ranks.
        """
        if self._saving is not None:
            self._saving.wait()

    @override
    def teardown(self) -> None:
        """Lets the writing of a checkpoint finish, even if the run failed."""
        if self._saving is not None:
            self._saving.close()
        super().teardown()
