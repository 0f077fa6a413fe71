"""Outputs of a frozen encoder kept on disk, one safetensors file a clip."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import get_worker_info

from .audio import clip_bytes
from .bad_examples import BadExampleError
from .example import Example
from .front_end import Encode

Extract = Callable[[Example], Tensor]


class FeatureCache:
    """Frames of a frozen encoder by (encoder fingerprint, clip content).

    Entries are written to a temporary name and renamed, so ranks and runs may share the folder; the worst that happens
    is that two of them compute the same clip. Workers only read: ``ensure`` runs in the main process before they start.

    Args:
        folder: Root of the cache.
        fingerprint: Of the encoder; frames of another one are never found.
        encode: The encoder; called in the process that builds the cache only.
    """

    def __init__(self, folder: str | Path, fingerprint: str, encode: Encode | None) -> None:
        self.folder = Path(folder) / hashlib.sha256(fingerprint.encode()).hexdigest()[:16]
        self.encode = encode

    def __getstate__(self) -> dict[str, object]:
        """Without the encoder, whose weights no worker process should get."""
        return {"folder": self.folder, "encode": None}

    def path(self, example: Example) -> Path:
        """File of a clip's frames: by the hash of the clip's content."""
        key = hashlib.sha256(clip_bytes(example)).hexdigest()
        return self.folder / key[:2] / f"{key}.safetensors"

    def ensure(self, example: Example, extract: Extract) -> None:
        """Compute a clip's frames if they are missing or unreadable."""
        path = self.path(example)
        if _load(path, header_only=True) is None:
            self._compute(example, path, extract)

    def frames(self, example: Example, extract: Extract) -> tuple[Tensor, int]:
        """Frames (hidden, T) float32 of a clip, and the length of the features they were computed from.

        Raises:
            BadExampleError: If the entry is missing or damaged and no encoder is at hand (in a worker).
        """
        path = self.path(example)
        found = _load(path)
        return found if found is not None else self._compute(example, path, extract)

    def _compute(self, example: Example, path: Path, extract: Extract) -> tuple[Tensor, int]:
        if self.encode is None or get_worker_info() is not None:
            detail = f"cache entry {path} is missing or damaged; allowed: to start again, which computes it"
            raise BadExampleError("damaged cache entry", example.location, detail)
        features = extract(example)
        with torch.no_grad():
            frames, lengths = self.encode(features[None], torch.tensor([features.shape[-1]]))
        kept = frames[0, : int(lengths[0])].T.contiguous().cpu()
        _save(path, kept, features.shape[-1])
        return kept.float(), features.shape[-1]


def _load(path: Path, header_only: bool = False) -> tuple[Tensor, int] | None:
    """The entry, or None if it is missing or damaged (safetensors checks the size against the header)."""
    try:
        with safe_open(path, framework="pt") as entry:
            length = int(entry.metadata()["feature_length"])
            frames = torch.empty(0) if header_only else entry.get_tensor("frames").float()
            return frames, length
    except (FileNotFoundError, SafetensorError, KeyError, TypeError, ValueError):
        return None


def _save(path: Path, frames: Tensor, feature_length: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    os.close(handle)
    try:
        save_file({"frames": frames}, temporary, metadata={"feature_length": str(feature_length)})
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
