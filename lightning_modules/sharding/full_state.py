"""Whole tensors of a sharded module and its optimizer, as checkpoints have them, and back."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from ...foundation.errors import UserError
from ...foundation.sharded_checkpoint import OPTIMIZER, fill, tensor_name
from ...foundation.sharding import whole_of


@torch.no_grad()
def whole_state(module: nn.Module, without: Collection[str], keep: bool) -> dict[str, Tensor]:
    """Returns a module's state dict in whole tensors on the CPU, gathered one after the other.

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


def own_state(module: nn.Module, without: Collection[str]) -> dict[str, Tensor]:
    """Returns a module's state dict as it is divided.

    Args:
        module: Sharded.
        without: Names that are left out.
    """
    return {name: tensor.detach() for name, tensor in module.state_dict().items() if name not in without}


def map_checkpoint(path: str | Path, weights_only: bool | None) -> dict[str, Any]:
    """Maps a checkpoint file into memory: its tensors are read on use, and ranks of a machine share those pages.

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

    Where either side has no values yet, rank zero gives them when it shares its weights out.
    """
    own = module.state_dict()
    here = {
        name: value for name, value in state.items() if not value.is_meta and (name not in own or not own[name].is_meta)
    }
    divided = {name: _divided(tensor, own[name]) if name in own else tensor for name, tensor in here.items()}
    module.load_state_dict(divided, strict=strict and len(here) == len(state))


def _divided(whole: Tensor, like: Tensor) -> Tensor:
    if whole.is_meta:
        return torch.zeros_like(like, dtype=whole.dtype)
    if not isinstance(like, DTensor):
        return whole
    moved = whole.to(like.to_local().device)
    return distribute_tensor(moved, like.device_mesh, like.placements, src_data_rank=None)


@torch.no_grad()
def whole_optimizer_state(optimizer: torch.optim.Optimizer, keep: bool) -> dict[str, Any]:
    """Returns an optimizer's state dict in whole tensors on the CPU: what one process would have.

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


def load_optimizer_state(
    optimizer: torch.optim.Optimizer, state: Mapping[str, Any], folder: Path | None = None, index: int = 0
) -> None:
    """Gives an optimizer of sharded parameters its part of a whole state dict, which may be of any number of ranks.

    Args:
        optimizer: Just built.
        state: Whole.
        folder: The sharded checkpoint that holds the values, if ``state`` has only shapes.
        index: Of the optimizer in the checkpoint.

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
    if folder is not None:
        fill(folder, {name: value for name, value in _named(divided, index) if isinstance(value, DTensor)})
    optimizer.load_state_dict({**state, "state": divided})


def _named(entries: Mapping[int, Mapping[str, Any]], index: int) -> Iterator[tuple[str, Any]]:
    for number, values in entries.items():
        for key, value in values.items():
            yield tensor_name(OPTIMIZER, index, number, key), value


def _mapped(entries: Mapping[str, Any], change: Callable[[Tensor], Any]) -> dict[str, Any]:
    return {key: change(value) if isinstance(value, Tensor) else value for key, value in entries.items()}
