"""Whole tensors of a sharded module and its optimizer, as checkpoints have them, and back."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from ...foundation.errors import UserError
from ...foundation.sharding import whole_of


@torch.no_grad()
def whole_state(module: nn.Module, without: Collection[str], keep: bool) -> dict[str, Tensor]:
    """Gives a module's state dict in whole tensors on the CPU, gathered one after the other.

    ``torch.distributed.checkpoint.state_dict`` would gather frozen weights as well, which checkpoints leave out.

    Args:
        module: Sharded; every rank must come here.
        without: Names that are left out.
        keep: Whether this rank wants them; else it only helps, and gets nothing.
    """
    found = {}
    for name, tensor in module.state_dict().items():
        if name not in without:
            whole = whole_of(tensor.detach())
            if keep:
                found[name] = whole.cpu()
    return found


def map_checkpoint(path: str | Path, weights_only: bool | None) -> dict[str, Any]:
    """Reads a checkpoint file, the tensors of weights and optimizer on use: ranks of a machine share those pages.

    Whoever keeps one of these must copy it: the file may be removed by another machine, where it is not missed yet.

    Args:
        path: A local file.
        weights_only: Whether plain values and tensors alone are allowed.
    """
    found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=weights_only, mmap=True)
    large = {key: found.pop(key) for key in ("state_dict", "optimizer_states") if key in found}
    return {**apply_to_collection(found, Tensor, Tensor.clone), **large}


def load_state(module: nn.Module, state: Mapping[str, Tensor], strict: bool) -> None:
    """Gives a module, sharded or not yet, its part of a whole state dict.

    Tensors without values are left so: rank zero gives them theirs when it shares its weights out.
    """
    own = module.state_dict()
    here = {name: tensor for name, tensor in state.items() if name not in own or not own[name].is_meta}
    divided = {name: _divided(tensor, own[name]) if name in own else tensor for name, tensor in here.items()}
    module.load_state_dict(divided, strict=strict and len(here) == len(state))


def _divided(whole: Tensor, like: Tensor) -> Tensor:
    if not isinstance(like, DTensor):
        return whole
    moved = whole.to(like.to_local().device)
    return distribute_tensor(moved, like.device_mesh, like.placements, src_data_rank=None)


@torch.no_grad()
def whole_optimizer_state(optimizer: torch.optim.Optimizer, keep: bool) -> dict[str, Any]:
    """Gives an optimizer's state dict in whole tensors on the CPU: what one process would have.

    Args:
        optimizer: Of sharded parameters; every rank must come here.
        keep: Whether this rank wants it; else its ``state`` is empty.
    """

    def gather(value: Tensor) -> Tensor | None:
        whole = whole_of(value)
        return whole.cpu() if keep else None

    state = optimizer.state_dict()
    whole = {number: _mapped(entries, gather) for number, entries in state["state"].items()}
    return {**state, "state": whole if keep else {}}


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Gives an optimizer of sharded parameters its part of a whole state dict, which may be of any number of ranks.

    Raises:
        UserError: If it keeps something that is neither a number nor of its parameter's shape.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    divided = {}
    for number, entries in state["state"].items():
        parameter = parameters[number]

        def divide(value: Tensor, parameter: Tensor = parameter) -> Tensor:
            if value.shape == parameter.shape:
                return _divided(value, parameter).clone()
            if value.numel() > 1:
                name = type(optimizer).__name__
                raise UserError(f"FSDP2: the state of {name} cannot be divided among ranks; allowed: AdamW, SGD")
            return value.clone()

        divided[number] = _mapped(entries, divide)
    optimizer.load_state_dict({**state, "state": divided})


def _mapped(entries: Mapping[str, Any], change: Callable[[Tensor], Any]) -> dict[str, Any]:
    return {key: change(value) if isinstance(value, Tensor) else value for key, value in entries.items()}
