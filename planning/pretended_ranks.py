"""One of several ranks that share the weights out (FSDP2), without the others: collectives return at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import distributed
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.testing._internal.distributed.fake_pg import FakeStore

from ..foundation.errors import UserError
from ..lightning_modules import SpeechLLM
from ..lightning_modules.sharding.blocks import shard
from ..lightning_modules.sharding.fsdp2 import COMPUTES_IN
from .shadow import exchanged


@contextmanager
def pretended_ranks(count: int, replicas: int | None) -> Iterator[None]:
    """Makes this process the first of so many while the context lasts: torch's own group that communicates nothing.

    What ranks tell each other as objects, the others say just as this one does.

    Args:
        count: Of all ranks.
        replicas: Of :class:`TrainerSettings`; None does nothing.

    Raises:
        UserError: If there is one rank, or the ranks cannot be divided among the replicas.
    """
    if replicas is None:
        yield
        return
    if count == 1:
        raise UserError("trainer.strategy: FSDP2 divides a model among ranks, got 1; allowed: --gpus 2 or more")
    if count % replicas:
        raise UserError(f"FSDP2.replicas: {replicas} (allowed: what divides the number of ranks, {count})")
    distributed.init_process_group("fake", rank=0, world_size=count, store=FakeStore())
    try:
        with exchanged(distributed, "all_gather_object", _all_alike):
            yield
    finally:
        distributed.destroy_process_group()


def _all_alike(parts: list[Any], value: Any) -> None:
    parts[:] = [value] * len(parts)


def mesh_of(ranks: int, replicas: int) -> DeviceMesh:
    """Arranges pretended ranks as :class:`FSDP2` arranges those of a run."""
    if replicas == 1:
        return init_device_mesh("cpu", (ranks,), mesh_dim_names=("data_parallel",))
    return init_device_mesh("cpu", (replicas, ranks // replicas), mesh_dim_names=("replicate", "shard"))


def divide(model: SpeechLLM, mesh: DeviceMesh, precision: str, reshard_after_forward: bool) -> None:
    """Leaves a model the first rank's part of its weights, as :class:`FSDP2` does before a fit.

    Args:
        model: With all of them, or of shapes.
        mesh: Of the ranks.
        precision: As Lightning names it.
        reshard_after_forward: Whether a block is freed between its forward and its backward pass.
    """
    towers: list[Any] = [model.llm, model.encoder]
    shard(model, towers, mesh, model.device, COMPUTES_IN.get(precision), reshard_after_forward)
