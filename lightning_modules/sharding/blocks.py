"""Which weights are gathered together, found by structure: each block by itself, and the rest with the root."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from ...foundation.decoder import decoder_layers
from ...foundation.errors import UserError
from ...foundation.sharding import KEPT
from .reading import ReadTensors


def shard(
    root: nn.Module,
    towers: Sequence[nn.Module],
    mesh: DeviceMesh,
    device: torch.device,
    dtype: torch.dtype | None,
    reshard_after_forward: bool,
) -> None:
    """Divides the weights of a module among ranks (FSDP2: Zhao et al., arXiv 2304.11277), in place.

    Values are those of rank zero, which may be the only one that has any: group by group it gives them to the others,
    which keep their part. So no other rank ever holds more than its parts and one group.

    Each block of the towers is a group: gathered before it computes, forward and backward, and freed after it. What
    is in no block (embeddings, head, final norm, adaptor) is gathered once a step with the root: it is needed outside
    of the LLM's own forward pass, and embedding and head may be one tensor.

    Args:
        root: What takes a step, and contains the towers.
        towers: Decoders or encoders; their blocks are found by structure.
        mesh: One dimension shards; of two, the first holds replicas.
        device: Where the parts are to lie.
        dtype: In which weights are gathered and compute; gradients are summed in their own type. None leaves them.
        reshard_after_forward: Whether a block is freed between its forward and its backward pass.

    Raises:
        UserError: If what trains has several types: gradients are summed in one piece; or if the ranks have built
            different models.
    """
    kinds = {parameter.dtype for parameter in root.parameters() if parameter.requires_grad}
    if len(kinds) > 1:
        names = ", ".join(sorted(str(kind).removeprefix("torch.") for kind in kinds))
        raise UserError(f"FSDP2: the weights that train are of several types ({names}); allowed: one, or ddp")
    own = next(iter(kinds), torch.float32)
    inner = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=dtype and own)
    # A batch is converted where it is used: token ids and masks lie beside the features.
    outer = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=dtype and own, cast_forward_inputs=False)
    read = ReadTensors(root, towers, device)
    for block in _blocks(towers):
        read.give(block)
        fully_shard(block, mesh=mesh, reshard_after_forward=reshard_after_forward, mp_policy=inner)
        setattr(block, KEPT, not reshard_after_forward)
    read.give(root)
    fully_shard(root, mesh=mesh, mp_policy=outer)
    _make_root(root)


def _blocks(towers: Iterable[nn.Module]) -> Iterator[nn.Module]:
    for tower in towers:
        try:
            blocks = decoder_layers(tower)
        except ValueError:  # an encoder without a stack goes with the root
            continue
        yield from blocks


def _make_root(root: nn.Module) -> None:
    """Runs an empty forward pass: the module that runs first is FSDP2's root, and a measurement might run a block."""
    assert isinstance(root, FSDPModule)
    root.forward = lambda: None
    try:
        with torch.no_grad():
            root()
    finally:
        del root.forward  # that of its class is back
    root.reshard()
