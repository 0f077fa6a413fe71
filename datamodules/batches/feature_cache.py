"""Outputs of a frozen encoder kept on disk, one safetensors file per clip."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.utils.data import get_worker_info

from ...foundation.files import replacing
from ..sources.audio import clip_bytes
from ..sources.bad_examples import BadExampleError
from ..sources.example import Example
from .front_end import Encode

Extract = Callable[[Example], Tensor]


class FeatureCache:
    """Frames of a frozen encoder by (encoder fingerprint, clip content), each with a digest of itself.

    Entries are written to a temporary name and renamed, so ranks and runs may share the folder; the worst that happens
    is that two of them compute the same clip. Workers only read: ``ensure`` runs in the main process before they start.

    Args:
        folder: Root of the cache.
        fingerprint: Stands for the encoder; frames of another one are never found.
        encode: The encoder; called in the process that builds the cache only.
    """

    def __init__(self, folder: str | Path, fingerprint: str, encode: Encode | None) -> None:
        self.folder = Path(folder) / hashlib.sha256(fingerprint.encode()).hexdigest()[:16]
        self.encode = encode

    def __getstate__(self) -> dict[str, object]:
        """Leaves the encoder out: no worker process should receive its weights."""
        return {"folder": self.folder, "encode": None}

    def path(self, example: Example) -> Path:
        """Returns the file of a clip's frames, named by the hash of the clip's content."""
        key = hashlib.sha256(clip_bytes(example)).hexdigest()
        return self.folder / key[:2] / f"{key}.safetensors"

    def ensure(self, example: Example, extract: Extract) -> None:
        """Computes a clip's frames if there is no complete entry; its bytes are checked when it is read."""
        path = self.path(example)
        if not _complete(path):
            self._compute(example, path, extract)

    def frames(self, example: Example, extract: Extract) -> tuple[Tensor, int]:
        """Returns a clip's frames, (hidden, T) float32, and the length of the features they were computed from.

        Raises:
            BadExampleError: If the entry is missing or damaged and no encoder is at hand (in a worker). A damaged one
                is removed, so that the next start computes it.
        """
        path = self.path(example)
        found = _load(path)
        return found if found is not None else self._compute(example, path, extract)

    def _compute(self, example: Example, path: Path, extract: Extract) -> tuple[Tensor, int]:
        if self.encode is None or get_worker_info() is not None:
            path.unlink(missing_ok=True)
            detail = f"cache entry {path} is missing or damaged; allowed: to start again, which computes it"
            raise BadExampleError("damaged cache entry", example.location, detail)
        features = extract(example)
        with torch.no_grad():
            frames, lengths = self.encode(features[None], torch.tensor([features.shape[-1]]))
        kept = frames[0, : int(lengths[0])].T.contiguous().cpu()
        _save(path, kept, features.shape[-1])
        return kept.float(), features.shape[-1]


def _complete(path: Path) -> bool:
    """Returns whether an entry has the size that its header states (safetensors checks it) and all that it needs."""
    try:
        with safe_open(path, framework="pt") as entry:
            return {"feature_length", "sha256"} <= (entry.metadata() or {}).keys()
    except (FileNotFoundError, SafetensorError):
        return False


def _load(path: Path) -> tuple[Tensor, int] | None:
    """Reads an entry; None if it is missing or damaged."""
    try:
        with safe_open(path, framework="pt") as entry:
            length, digest = int(entry.metadata()["feature_length"]), entry.metadata()["sha256"]
            frames = entry.get_tensor("frames")
    except (FileNotFoundError, SafetensorError, KeyError, TypeError, ValueError):
        return None
    return (frames.float(), length) if _digest(frames, length) == digest else None


def _digest(frames: Tensor, feature_length: int) -> str:
    """Takes the SHA-256 of all that an entry says; half a millisecond for ten seconds of Whisper."""
    content = hashlib.sha256(f"{feature_length}:{tuple(frames.shape)}:{frames.dtype}:".encode())
    content.update(frames.flatten().view(torch.uint8).numpy().data)
    return content.hexdigest()


def _save(path: Path, frames: Tensor, feature_length: int) -> None:
    metadata = {"feature_length": str(feature_length), "sha256": _digest(frames, feature_length)}
    with replacing(path) as temporary:
        temporary.write_bytes(save({"frames": frames}, metadata))  # save_file() would make it private
