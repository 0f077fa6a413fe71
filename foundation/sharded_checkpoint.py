"""Checkpoints as folders: each rank's parts of weights and optimizer in safetensors files, the rest in one small file.

``torch.distributed.checkpoint`` writes and reads the tensors, in its safetensors format: its own keeps a pickle, which
nothing here loads. A folder appears under its name when all of it is on the disk.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .shard_files import REST, check_whole

WEIGHTS = "weights"
OPTIMIZER = "optimizer"


def is_sharded_checkpoint(path: str | Path) -> bool:
    """Tells whether a path is a checkpoint that is a folder."""
    return Path(path, REST).is_file()


def is_checkpoint(path: str | Path) -> bool:
    """Tells whether a path is a checkpoint, of one file or of several."""
    return Path(path).is_file() or is_sharded_checkpoint(path)


def tensor_name(kind: str, *parts: object) -> str:
    """Returns the name of a tensor inside of the files.

    Args:
        kind: ``WEIGHTS`` or ``OPTIMIZER``.
        *parts: Its name in the module; or the optimizer's number, its parameter's number, and the name of the state.
    """
    return ".".join(map(str, (kind, *parts)))


def shapes_of(folder: Path) -> dict[str, Tensor]:
    """Returns the tensors of a sharded checkpoint by name, on the meta device: shapes and types, no values.

    Raises:
        UserError: If a file of it is missing, cut short or of another checkpoint.
    """
    from torch.distributed.checkpoint import HuggingFaceStorageReader

    check_whole(folder)
    found = HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
    sizes: Any = found  # safetensors hold tensors alone
    return {name: torch.empty(entry.size, dtype=entry.properties.dtype, device="meta") for name, entry in sizes.items()}


def fill(folder: Path, tensors: dict[str, Tensor]) -> None:
    """Reads values into tensors, in place; of a sharded one this rank's part alone is read. No rank waits for another.

    Args:
        folder: The checkpoint.
        tensors: By their names in it, with their shapes and types.

    Raises:
        UserError: If a file of it is missing, cut short or of another checkpoint.
    """
    from torch.distributed import checkpoint

    if tensors:
        check_whole(folder)  # parts that no file holds would keep whatever was in memory
        reader = checkpoint.HuggingFaceStorageReader(str(folder))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled, .* load in a single process")
            checkpoint.load(dict(tensors), storage_reader=reader, no_dist=True)


def read_rest(folder: Path, weights_only: bool | None = True) -> dict[str, Any]:
    """Reads what is not divided: counters, settings, the state of callbacks; no large tensors.

    Args:
        folder: The checkpoint.
        weights_only: Whether plain values and tensors alone are allowed.
    """
    found: dict[str, Any] = torch.load(folder / REST, map_location="cpu", weights_only=weights_only)
    return found


def read_sharded(
    folder: Path, weights_only: bool | None = True, values: bool = True, optimizer: bool = True
) -> dict[str, Any]:
    """Returns a sharded checkpoint as Lightning has it: whole tensors on the CPU, whatever the number of ranks was.

    Args:
        folder: The checkpoint.
        weights_only: Whether plain values and tensors alone are allowed.
        values: Whether tensors have their values; else they are on the meta device.
        optimizer: Whether to read the optimizer's state too; else it has none.

    Raises:
        UserError: If a file of it is missing, cut short or of another checkpoint.
    """
    shapes, checkpoint = shapes_of(folder), read_rest(folder, weights_only)
    wanted = {name: shape for name, shape in shapes.items() if optimizer or name.startswith(f"{WEIGHTS}.")}
    if values:
        wanted = {name: torch.empty(shape.shape, dtype=shape.dtype) for name, shape in wanted.items()}
        fill(folder, wanted)
    for name, tensor in wanted.items():
        kind, _, rest = name.partition(".")
        if kind == WEIGHTS:
            checkpoint["state_dict"][rest] = tensor
        else:
            index, number, key = rest.split(".", 2)
            checkpoint["optimizer_states"][int(index)]["state"].setdefault(int(number), {})[key] = tensor
    if not optimizer:
        checkpoint.pop("optimizer_states", None)
    return checkpoint


def without_parts(checkpoint: Mapping[str, Any], parts: Mapping[str, Tensor]) -> dict[str, Any]:
    """Returns a checkpoint without the tensors that other files hold.

    Args:
        checkpoint: Lightning's.
        parts: By :func:`tensor_name`.
    """
    left = {**checkpoint}
    weights = checkpoint["state_dict"]
    left["state_dict"] = {name: value for name, value in weights.items() if tensor_name(WEIGHTS, name) not in parts}
    if "optimizer_states" in checkpoint:
        left["optimizer_states"] = [
            {
                **state,
                "state": {
                    number: {
                        key: v for key, v in entries.items() if tensor_name(OPTIMIZER, i, number, key) not in parts
                    }
                    for number, entries in state["state"].items()
                },
            }
            for i, state in enumerate(checkpoint["optimizer_states"])
        ]
    return left


def named_tensors(checkpoint: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yields the weights and the optimizer's values of a checkpoint by :func:`tensor_name`."""
    for name, value in checkpoint["state_dict"].items():
        yield tensor_name(WEIGHTS, name), value
    for i, state in enumerate(checkpoint.get("optimizer_states", ())):
        for number, entries in state["state"].items():
            for key, value in entries.items():
                yield tensor_name(OPTIMIZER, i, number, key), value
