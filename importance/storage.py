"""Snapshot folders: ``stats.safetensors``, optional ``masks.safetensors`` and ``maps.safetensors``, ``meta.json``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_torch
from safetensors.torch import save_file as save_torch

from ..foundation.files import follow_umask, replacing_folder
from .masks import from_gaps, to_gaps
from .snapshot_data import Group, Matrix, SnapshotData

FORMAT = 3  # 1 had no delta-coded masks
WITHOUT_GROUPS = 2  # written if no estimator has its own groups: earlier versions can read it
GAPS = "gaps:"  # before the key of a mask that is stored as gaps
Kind = TypeVar("Kind", bound=SnapshotData)


def save_snapshot(snapshot: SnapshotData, folder: Path) -> Path:
    """Writes a snapshot folder under a temporary name and renames it; an existing one is replaced."""
    with replacing_folder(folder) as temporary:
        _write(snapshot, temporary)
    return folder


def _write(snapshot: SnapshotData, temporary: Path) -> None:
    save_file(_stats(snapshot), temporary / "stats.safetensors")
    if snapshot.masks:
        save_file(_coded_masks(snapshot), temporary / "masks.safetensors")
    if snapshot.maps:
        maps = {
            f"{e}/{m.name}": entries.detach().cpu().contiguous()
            for e, tensors in snapshot.maps.items()
            for m, entries in zip(snapshot.table, tensors, strict=True)
        }
        save_torch(maps, temporary / "maps.safetensors")
    follow_umask(temporary)
    meta = {
        **snapshot.meta,
        "format": FORMAT if snapshot.groups else WITHOUT_GROUPS,
        "matrices": [asdict(m) for m in snapshot.table],
        **({"groups": _as_json(snapshot.groups)} if snapshot.groups else {}),
    }
    (temporary / "meta.json").write_text(json.dumps(meta, indent=1) + "\n", encoding="utf-8")


def load_snapshot(folder: Path, kind: type[Kind]) -> Kind:
    """Reads a snapshot folder; nothing is unpickled.

    Args:
        folder: Written by :func:`save_snapshot`.
        kind: The class that holds what is read.

    Raises:
        FileNotFoundError: If there is no snapshot.
        ValueError: If it is damaged, or its format is newer than this version.
    """
    meta = read_meta(folder)
    table = [Matrix(**{**entry, "shape": tuple(entry["shape"])}) for entry in meta.pop("matrices")]
    groups = {e: [Group(**entry) for entry in entries] for e, entries in meta.pop("groups", {}).items()}
    try:
        stats = load_file(folder / "stats.safetensors")
    except (OSError, SafetensorError) as error:
        raise ValueError(f"importance: {folder / 'stats.safetensors'} cannot be read: {error}") from error
    heights, widths = [m.shape[0] for m in table], [m.shape[1] for m in table]
    return kind(
        table=table,
        examples=_part(stats, "examples/"),
        totals=_part(stats, "totals/"),
        rows={e: _split(flat, heights) for e, flat in _part(stats, "rows/").items()},
        columns={e: _split(flat, widths) for e, flat in _part(stats, "columns/").items()},
        heads=_split(stats["heads"], meta["heads"]) if meta["heads"] else [np.zeros(0)] * len(table),
        losses=stats["losses"],
        tokens=stats["tokens"],
        meta=meta,
        masks=_by_matrix(_decoded_masks(load_file(folder / "masks.safetensors"), table), table)
        if (folder / "masks.safetensors").exists()
        else {},
        maps=_by_matrix(load_torch(folder / "maps.safetensors"), table)
        if (folder / "maps.safetensors").exists()
        else {},
        groups=groups,
    )


def read_meta(folder: Path) -> dict[str, Any]:
    """Reads the ``meta.json`` of a snapshot folder.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is damaged or of a newer format.
    """
    path = folder / "meta.json"
    if not path.is_file():
        raise FileNotFoundError(f"importance: no snapshot in {folder} (meta.json is missing)")
    try:
        meta: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version = int(meta["format"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"importance: {path} is not a snapshot's meta.json: {error}") from error
    if version > FORMAT:
        raise ValueError(f"importance: {path} has format {version}, this version reads up to {FORMAT}")
    return meta


def _stats(snapshot: SnapshotData) -> dict[str, np.ndarray]:
    """Flattens arrays: rows and columns of all matrices one after another, in the order of the table."""
    stats = {
        "losses": snapshot.losses,
        "tokens": snapshot.tokens,
        **{f"examples/{e}": scores for e, scores in snapshot.examples.items()},
        **{f"totals/{e}": scores for e, scores in snapshot.totals.items()},
        **{f"rows/{e}": np.concatenate(parts).astype(np.float32) for e, parts in snapshot.rows.items()},
        **{f"columns/{e}": np.concatenate(parts).astype(np.float32) for e, parts in snapshot.columns.items()},
    }
    if snapshot.meta["heads"]:
        stats["heads"] = np.concatenate(snapshot.heads)
    return {key: np.ascontiguousarray(value) for key, value in stats.items()}


def _as_json(groups: dict[str, list[Group]]) -> dict[str, list[dict[str, Any]]]:
    return {estimator: [asdict(group) for group in found] for estimator, found in groups.items()}


def _coded_masks(snapshot: SnapshotData) -> dict[str, np.ndarray]:
    """Encodes each mask in the shorter form: one bit per weight, or the gaps between chosen ones (10 % or less)."""
    coded = {}
    for estimator, masks in snapshot.masks.items():
        for matrix, bits in zip(snapshot.table, masks, strict=True):
            gaps = to_gaps(bits)
            key = f"{estimator}/{matrix.name}"
            coded.update({f"{GAPS}{key}": gaps} if gaps.size < bits.size else {key: bits})
    return coded


def _decoded_masks(stored: dict[str, np.ndarray], table: list[Matrix]) -> dict[str, np.ndarray]:
    sizes = {m.name: m.shape[0] * m.shape[1] for m in table}
    masks = {}
    for key, value in stored.items():
        plain = key.removeprefix(GAPS)
        masks[plain] = value if plain == key else from_gaps(value, sizes[plain.split("/", 1)[1]])
    return masks


def _part(stats: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {key[len(prefix) :]: value for key, value in stats.items() if key.startswith(prefix)}


def _split(flat: np.ndarray, sizes: list[int]) -> list[np.ndarray]:
    return np.split(flat, np.cumsum(sizes)[:-1])


def _by_matrix(stored: dict[str, Any], table: list[Matrix]) -> dict[str, list[Any]]:
    estimators = dict.fromkeys(key.split("/", 1)[0] for key in stored)
    return {e: [stored[f"{e}/{m.name}"] for m in table] for e in estimators}


def versions() -> dict[str, str]:
    """Lists the versions that a number may depend on."""
    return {"torch": torch.__version__, "numpy": np.__version__}
