"""Checkpoints contain what was trained; what was frozen is named and hashed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..precision import main_dtype


def frozen_names(module: nn.Module, to_save: Iterable[Tensor] = ()) -> set[str]:
    """Names in the state dict that need not be saved: frozen parameters and the buffers of wholly frozen modules.

    Args:
        module: The module.
        to_save: Frozen tensors to save nevertheless.
    """
    saved = {id(tensor) for tensor in to_save}
    trained: set[str] = set()
    for name, parameter in module.named_parameters(remove_duplicate=False):
        if parameter.requires_grad or id(parameter) in saved:
            trained.add(name)
    trained |= {name for name, buffer in module.named_buffers(remove_duplicate=False) if id(buffer) in saved}
    owners = {name.rsplit(".", 1)[0] for name in trained}
    frozen = set()
    for name in module.state_dict():
        owner = name.rsplit(".", 1)[0]
        if name not in trained and owner not in owners:
            frozen.add(name)
    return frozen


def frozen_hash(state: Mapping[str, Tensor], names: set[str]) -> str:
    """Computes SHA-256 over names, shapes and float32 bytes of the frozen tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(names):
        tensor = state[name].detach().to("cpu", torch.float32).contiguous()
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().data)
    return digest.hexdigest()


def drop_frozen(
    checkpoint: dict[str, Any], module: nn.Module, known_hash: str | None = None, to_save: Iterable[Tensor] = ()
) -> str:
    """Removes the frozen tensors from a checkpoint and leaves a hash of them.

    Args:
        checkpoint: Lightning's checkpoint; its ``state_dict`` is replaced.
        module: The module it was made of.
        known_hash: The hash, if it was computed before; frozen weights do not change.
        to_save: Frozen tensors to save nevertheless.

    Returns:
        The hash.
    """
    names = frozen_names(module, to_save)
    state = checkpoint["state_dict"]
    digest = known_hash or frozen_hash(state, names)
    checkpoint["state_dict"] = {name: tensor for name, tensor in state.items() if name not in names}
    checkpoint["frozen"] = {"count": len(names), "sha256": digest}
    return digest


def check_frozen(
    checkpoint: Mapping[str, Any], module: nn.Module, to_save: Iterable[Tensor] = (), known_hash: str | None = None
) -> None:
    """Checks that a checkpoint lacks exactly the frozen tensors, and that these are the ones it was trained with.

    Args:
        checkpoint: Lightning's checkpoint.
        module: The module it is to be loaded into.
        to_save: Frozen tensors that it contains nevertheless.
        known_hash: The hash of the frozen ones, if it was computed before; they do not change.

    Raises:
        ValueError: If keys are missing or unexpected, or the frozen weights (another base model, encoder or
            precision) differ.
    """
    names = frozen_names(module, to_save)
    state = module.state_dict()
    wanted = set(state) - names
    found = set(checkpoint["state_dict"])
    if wanted != found:
        odd = sorted(wanted ^ found)
        where = "is missing in" if odd[0] in wanted else "is unexpected in"
        raise ValueError(f"the checkpoint does not fit this model: '{odd[0]}' {where} it ({len(odd)} such names)")
    saved = checkpoint.get("frozen")
    if saved and names and saved["sha256"] != (known_hash or frozen_hash(state, names)):
        check_types(checkpoint, module)  # frozen weights with other rounding are other weights
        raise ValueError(
            "the checkpoint was trained on other frozen weights (base model or encoder) than those given now: "
            "use the same `llm` and `encoder` as its config.yaml"
        )


def check_types(checkpoint: Mapping[str, Any], module: nn.Module) -> None:
    """Checks that a checkpoint's weights have the type of a model's.

    Args:
        checkpoint: Lightning's checkpoint.
        module: The model it is to be loaded into.

    Raises:
        ValueError: If they do not: the Trainer's precision differs from the run's.
    """
    own = module.state_dict()
    saved = {name: tensor for name, tensor in checkpoint["state_dict"].items() if name in own}
    found, wanted = main_dtype(saved.values()), main_dtype(own[name] for name in saved)
    if found != wanted:
        raise ValueError(
            f"trainer.precision: the checkpoint's weights are {_name(found)} and this model's {_name(wanted)}; "
            "allowed: the precision of the run, as in its config.yaml"
        )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
