"""Checkpoints as folders: each rank's parts of weights and optimizer in safetensors files, the rest in one small file.

``torch.distributed.checkpoint`` writes and reads the tensors, in its safetensors format: its own keeps a pickle, which
nothing here loads. A folder appears under its name when all of it is on the disk.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .files import sync

REST = "rest.ckpt"
"""Whatever of Lightning's checkpoint is not divided among ranks, as ``torch.save`` writes it."""
SIZES = "files.json"
"""The other files and their sizes in bytes."""
WEIGHTS = "weights"
OPTIMIZER = "optimizer"


def is_sharded_checkpoint(path: str | Path) -> bool:
    """Tells whether a path is a checkpoint that is a folder."""
    return Path(path, REST).is_file()


def is_checkpoint(path: str | Path) -> bool:
    """Tells whether a path is a checkpoint, of one file or of several."""
    return Path(path).is_file() or is_sharded_checkpoint(path)


def missing_part(folder: Path) -> str | None:
    """Names a file of a sharded checkpoint that is not there as it was written, or None if all are.

    Args:
        folder: The checkpoint.
    """
    try:
        sizes = json.loads((folder / SIZES).read_text())
    except (OSError, ValueError):
        return SIZES
    odd = [name for name, size in sizes.items() if not _has_size(folder / name, size)]
    return next(iter(odd), None if zipfile.is_zipfile(folder / REST) else REST)


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def note_sizes(folder: Path) -> None:
    """Writes down which files a checkpoint has; the last thing before it gets its name."""
    sizes = {file.name: file.stat().st_size for file in sorted(folder.iterdir())}
    (folder / SIZES).write_text(json.dumps(sizes, indent=1))
    sync(folder / SIZES)


def tensor_name(kind: str, *parts: object) -> str:
    """Gives the name of a tensor inside of the files.

    Args:
        kind: ``WEIGHTS`` or ``OPTIMIZER``.
        *parts: Its name in the module; or the optimizer's number, its parameter's number, and the name of the state.
    """
    return ".".join(map(str, (kind, *parts)))


def shapes_of(folder: Path) -> dict[str, Tensor]:
    """Gives the tensors of a sharded checkpoint by name, on the meta device: shapes and types, no values."""
    from torch.distributed.checkpoint import HuggingFaceStorageReader

    found = HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
    sizes: Any = found  # safetensors hold tensors alone
    return {name: torch.empty(entry.size, dtype=entry.properties.dtype, device="meta") for name, entry in sizes.items()}


def fill(folder: Path, tensors: dict[str, Tensor]) -> None:
    """Reads values into tensors, in place; of a sharded one this rank's part alone is read. No rank waits for another.

    Args:
        folder: The checkpoint.
        tensors: By their names in it, with their shapes and types.
    """
    from torch.distributed import checkpoint

    if tensors:
        reader = checkpoint.HuggingFaceStorageReader(str(folder))
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
    """Gives a sharded checkpoint as Lightning has it: whole tensors on the CPU, whatever the number of ranks was.

    Args:
        folder: The checkpoint.
        weights_only: Whether plain values and tensors alone are allowed.
        values: Whether tensors have their values; else they are on the meta device.
        optimizer: Whether to read the optimizer's state too; else it has none.
    """
    checkpoint, shapes = read_rest(folder, weights_only), shapes_of(folder)
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
    """Gives a checkpoint without the tensors that other files hold.

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
    """Gives the weights and the optimizer's values of a checkpoint by :func:`tensor_name`."""
    for name, value in checkpoint["state_dict"].items():
        yield tensor_name(WEIGHTS, name), value
    for i, state in enumerate(checkpoint.get("optimizer_states", ())):
        for number, entries in state["state"].items():
            for key, value in entries.items():
                yield tensor_name(OPTIMIZER, i, number, key), value
