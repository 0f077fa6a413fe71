"""The untouched LLM's predictions on disk, so that no second model is needed in memory."""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from ...foundation.files import follow_umask, replacing
from ..contract import Batch, SpeechModel
from ..losses.divergence import top_divergence
from ..precision import at_least_float32
from .teacher import Comparison, Teacher


class CachedTeacher(Teacher):
    """The teacher's ``top_k`` most likely tokens at every answer token, computed once per example.

    At the start of a fit, the entries that the folder lacks are computed, divided among the ranks; the copy of the
    untouched LLM that this needs (none under LoRA) is freed before the first step. An entry is a small safetensors file
    named by a hash of the untouched LLM's weights and their type, temperature, ``top_k`` and the example's token ids:
    another model, prompt or answer has other entries. Entries are renamed into place, so an interrupted start continues
    where it stopped, and runs may share the folder.

    The divergence is over ``top_k`` + 1 outcomes, the last being "any other token": a lower bound of the exact one
    (``top_divergence``). The teacher's view of unlikely tokens is not taught.

    Args:
        folder: Of the entries. 8 bytes for each of ``top_k`` tokens at each answer token: 5 GB for 100,000 answers of
            100 tokens at 64.
        top_k: Tokens kept.
    """

    def __init__(self, folder: str, top_k: int = 64) -> None:
        if top_k < 1:
            raise ValueError(f"CachedTeacher: top_k is {top_k}, but must be at least 1")
        self.folder = Path(folder)
        self.top_k = top_k

    def start(self, model: SpeechModel, temperature: float) -> None:
        """Computes what is missing.

        Raises:
            ValueError: If the data module cannot give its training examples as text.
        """
        data: Any = getattr(model.trainer, "datamodule", None)
        if not hasattr(data, "training_texts"):
            raise ValueError("CachedTeacher needs a data module with training_texts() (SpeechTextData)")
        computed = total = 0
        for batch in data.training_texts():
            paths = self._paths(model, batch, temperature)
            total += len(paths)
            if missing := {row: path for row, path in paths.items() if not _readable(path)}:
                with model.trainer.precision_plugin.forward_context():
                    self._compute(model, batch.to(model.device), missing, temperature)
                computed += len(missing)
        model.reference.release()
        model.trainer.strategy.barrier("distillation cache")
        rank_zero_info(f"distillation: {total} teacher answers in {self.folder}, {computed} of them computed now")

    def read(self, model: SpeechModel, texts: Batch, temperature: float) -> Comparison:
        """Reads the top tokens of the batch from disk.

        Raises:
            ValueError: If an entry is missing or damaged.
        """
        entries = [self._load(path) for path in self._paths(model, texts, temperature).values()]
        device = texts.labels.device
        if not entries:  # no row of this rank's batch has a text twin
            nothing = torch.zeros(0, 1, device=device)
            return partial(top_divergence, nothing, nothing.long(), temperature=temperature)
        log_probs = torch.cat([entry["log_probs"] for entry in entries]).to(device)
        tokens = torch.cat([entry["tokens"] for entry in entries]).to(device).long()
        return partial(top_divergence, log_probs, tokens, temperature=temperature)

    def _compute(self, model: SpeechModel, batch: Batch, missing: dict[int, Path], temperature: float) -> None:
        logits, targets = model.reference.untouched_logits(batch)
        for row, path in missing.items():
            found = at_least_float32(logits[row][targets[row] != -100])
            log_probs = (found / temperature).log_softmax(dim=-1).float()
            top = log_probs.topk(min(self.top_k, log_probs.shape[-1] - 1), dim=-1)
            _save(path, {"log_probs": top.values, "tokens": top.indices.int()})

    def _paths(self, model: SpeechModel, batch: Batch, temperature: float) -> dict[int, Path]:
        """Returns row -> file, of the rows that supervise anything."""
        settings = f"{model.reference.fingerprint}:{temperature}:{self.top_k}"
        if model.llm.dtype != torch.float32:  # a teacher that computes in another type predicts differently
            settings += f":{model.llm.dtype}"
        folder = self.folder / hashlib.sha256(settings.encode()).hexdigest()[:16]
        paths = {}
        rows = zip(batch.input_ids.cpu(), batch.attention_mask.cpu().bool(), batch.labels.cpu(), strict=True)
        for row, (ids, real, labels) in enumerate(rows):
            supervised = labels[real] != -100
            if bool(supervised.any()):
                key = hashlib.sha256(f"{ids[real].tolist()}:{int(supervised.sum())}".encode()).hexdigest()
                paths[row] = folder / key[:2] / f"{key}.safetensors"
        return paths

    @staticmethod
    def _load(path: Path) -> dict[str, Tensor]:
        try:
            return load_file(path)
        except (OSError, SafetensorError) as error:
            raise ValueError(
                f"distillation: the teacher's answer {path} is missing or damaged; start again, which computes it"
            ) from error


def _readable(path: Path) -> bool:
    """Returns whether the entry exists and is complete (safetensors checks the size against the header)."""
    try:
        with safe_open(path, framework="pt"):
            return True
    except (OSError, SafetensorError):
        return False


def _save(path: Path, tensors: dict[str, Tensor]) -> None:
    with replacing(path) as temporary:
        save_file({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, temporary)
        follow_umask(temporary)
