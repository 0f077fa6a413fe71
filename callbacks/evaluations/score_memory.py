"""Scores of an untouched LLM on text, kept on disk: runs that start from the same weights need not repeat them."""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import platform
from collections.abc import Callable, Iterator
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from ... import evaluation
from ...foundation.decoder import clean_name
from ...foundation.files import write_json

FORMAT = 1
LIBRARIES = ("torch", "transformers", "tokenizers", "peft")


class ScoreMemory:
    """Scores of text by what they depend on; a matching entry equals a new measurement bit for bit.

    An entry is found by a SHA-256 of the whole weights, their types and the model's settings (LoRA whose B is zero
    changes nothing and is left out), tokenizer, precision, device and number of threads, the versions of the libraries
    and the text of our own code, and of what is asked: the token ids, masks and labels of a batch, so template, data,
    and how they are batched count. Files are JSON, appear whole, and hold a digest of themselves: one that is damaged
    is measured anew. Ranks and runs may share the folder.

    Args:
        folder: Of the entries.
        model: The speech LLM.
        precision: ``Trainer.precision``.

    Attributes:
        known: How many were read.
        new: How many were measured.
    """

    def __init__(self, folder: Path, model: Any, precision: str) -> None:
        self.folder = folder
        self.known = self.new = 0
        self._model = _digest(weights_of(model.llm), _settings(model, precision))

    @classmethod
    def of_untouched(cls, folder: str | None, trainer: Trainer, model: Any) -> ScoreMemory | None:
        """Returns the memory where a fit has not taken a step; elsewhere, or of parts that are not ours, none.

        Args:
            folder: Of the entries; None keeps nothing.
            trainer: Of the fit.
            model: The speech LLM, whose text a class from outside may read in a way that cannot be known here.
        """
        begins = trainer.state.fn == TrainerFn.FITTING and trainer.global_step == 0
        if folder is None or not begins or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return None
        tuning: Any = getattr(model, "tuning", None)
        known = _ours(model) and _ours(tuning) and _is_fast(model.tokenizer)
        if not known or tuning.loading_options() or any(".lora_" in name for name in weights_of(model.llm)):
            return None  # packed weights keep part of themselves elsewhere; LoRA that acts may act behind a gate
        return cls(Path(folder), model, str(trainer.precision))

    def key(self, asked: Any) -> str:
        """Returns the name under which this model's results are kept."""
        return _digest(self._model, asked)

    def recall(self, asked: Any, measure: Callable[[], Any]) -> Any:
        """Returns the stored result for the same request; measures and stores it if there is none.

        Args:
            asked: All that the answer depends on beside the model: numbers, texts and tensors in lists and mappings.
            measure: Measures it: JSON, whose floats come back as they were.
        """
        key = self.key(asked)
        path = self.folder / self._model[:16] / key[:2] / f"{key}.json"
        found = _read(path, key)
        if found is None:
            found, self.new = measure(), self.new + 1
            if _finite(found):
                write_json({"key": key, "found": found, "sha256": _digest(key, found)}, path)
        else:
            self.known += 1
        return found

    def tell(self) -> None:
        """Says how much was already known."""
        if self.known:
            parts = f"{self.known} of {self.known + self.new} parts"
            rank_zero_info(f"the untouched LLM's scores of text: {parts} from {self.folder}")


def weights_of(llm: nn.Module) -> dict[str, Tensor]:
    """Returns what an LLM computes text with: its parameters and buffers, without LoRA that adds exactly nothing."""
    found = dict(chain(llm.named_parameters(), llm.named_buffers()))
    adapters = [name for name in found if ".lora_" in name]
    ups = [name for name in adapters if ".lora_B." in name]
    plain = len(adapters) == 2 * len(ups) and all(name.replace(".lora_B.", ".lora_A.") in found for name in ups)
    if plain and not any(bool(found[name].any()) for name in ups):
        found = {name.replace(".base_layer.", "."): tensor for name, tensor in found.items() if ".lora_" not in name}
    return {clean_name(name): tensor for name, tensor in found.items()}


def _settings(model: Any, precision: str) -> list[Any]:
    """Lists what scores of text depend on beside weights and text, down to the last bit."""
    llm, tokenizer, device = model.llm, model.tokenizer, model.device
    config = {key: value for key, value in llm.config.to_dict().items() if key != "_name_or_path"}
    config["attention"] = getattr(llm.config, "_attn_implementation", None)
    place = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return [
        [FORMAT, [version(name) for name in LIBRARIES], code_of(type(model), evaluation, ScoreMemory)],
        [precision, torch.get_float32_matmul_precision(), torch.are_deterministic_algorithms_enabled()],
        [device.type, place, torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()],
        [type(llm).__qualname__, config, llm.generation_config.to_dict(), model.max_new_tokens],
        [tokenizer.backend_tokenizer.to_str(), tokenizer.special_tokens_map],
    ]


def code_of(*parts: Any) -> str:
    """Hashes the files in the folders of classes and packages: a changed one may score another way."""
    folders = [Path(inspect.getfile(part)).parent for part in parts]
    files = sorted(file for folder in folders for file in folder.rglob("*.py"))
    return _digest([file.read_text(encoding="utf-8") for file in files])


def _ours(part: Any) -> bool:
    return type(part).__module__.partition(".")[0] == __name__.partition(".")[0]


def _is_fast(tokenizer: Any) -> bool:
    """Returns whether a tokenizer can be written down whole."""
    return hasattr(getattr(tokenizer, "backend_tokenizer", None), "to_str")


def _read(path: Path, key: str) -> Any:
    """Reads an entry; None if it is missing, damaged or another's."""
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))
        if entry["key"] == key and entry["sha256"] == _digest(key, entry["found"]):
            return entry["found"]
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def _finite(found: Any) -> bool:
    values = found.values() if isinstance(found, dict) else found if isinstance(found, list) else ()
    return all(map(_finite, values)) and not (isinstance(found, float) and not math.isfinite(found))


def _digest(*parts: Any) -> str:
    """Hashes numbers, texts and tensors in lists and mappings, with their types and places."""
    digest = hashlib.sha256()
    for piece in _pieces(list(parts)):
        digest.update(piece)
    return digest.hexdigest()


def _pieces(part: Any) -> Iterator[Any]:
    if isinstance(part, Tensor):
        yield f"tensor {part.dtype} {tuple(part.shape)} ".encode()
        yield part.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
    elif isinstance(part, dict):
        yield f"mapping {len(part)} ".encode()
        for key in sorted(part, key=str):
            yield from _pieces([str(key), part[key]])
    elif isinstance(part, list | tuple):
        yield f"list {len(part)} ".encode()
        for item in part:
            yield from _pieces(item)
    else:
        written = str(part).encode()
        yield f"{type(part).__name__} {len(written)} ".encode() + written
