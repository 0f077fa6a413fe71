"""A copy of a model's folder with other values of some weights: a repaired audio LLM remains an audio LLM.

Everything else in the folder stays the same, byte for byte: towers, projectors, a talker, adapters for sound, processor
and chat template. So anything that reads the first folder reads the second. Only duplicates of the weights in other
formats are left out.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ...foundation.files import follow_umask, replacing_folder, write_json

REPAIR = "repair.json"
"""What the folder was made from, for human readers."""
INDEX = "model.safetensors.index.json"
WHOLE = "model.safetensors"
TWICE = ("consolidated*", "pytorch_model*.bin*", "*.pth", "*.gguf", "tf_model.h5", "flax_model.msgpack")
"""Copies of the weights in other formats are left out: they are not repaired, and some loaders prefer them."""
_HEADS = ("lm_head.weight", "embed_out.weight")  # names that causal LMs give their head

Place = tuple[str, str]
"""File in the folder and key in the file."""


class ModelFolder:
    """Where the weights of a causal LM lie in the folder it was read from, on its own or inside another model.

    Args:
        folder: Local folder of a model of transformers.

    Raises:
        ValueError: If its weights are not in safetensors.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if (folder / INDEX).is_file():
            self._file_of: dict[str, str] = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
        elif (folder / WHOLE).is_file():
            with safe_open(folder / WHOLE, "pt") as file:
                self._file_of = dict.fromkeys(file.keys(), WHOLE)
        else:
            raise ValueError(f"{folder} holds no {WHOLE} and no {INDEX}; allowed: a model saved as safetensors")

    def places(self, parameters: Mapping[str, Tensor]) -> dict[str, list[Place]]:
        """Finds the parameters of a causal LM in the files: by their names behind one prefix, and by their values.

        Args:
            parameters: Name in the causal LM -> value as it was read; for a tied head, one name is enough.

        Returns:
            Name -> where it lies; more than one place if a tied head is stored separately.

        Raises:
            ValueError: If one is not stored as it was read: transformers may convert weights on loading.
        """
        decoder, _ = Counter(name.partition(".")[0] for name in parameters).most_common(1)[0]
        inside = [name for name in parameters if name.startswith(f"{decoder}.")]
        rest = {name: name.removeprefix(f"{decoder}.") for name in inside}
        first = rest[inside[0]]
        prefixes = [key.removesuffix(first) for key in self._file_of if key == first or key.endswith(f".{first}")]
        missing: list[str] = []
        for prefix in prefixes:
            odd = next((n for n in inside if not self._holds(f"{prefix}{rest[n]}", parameters[n])), None)
            if odd is None:
                found = {name: [self._place(f"{prefix}{rest[name]}")] for name in inside}
                return found | self._heads(parameters, inside, found)
            missing.append(odd)
        furthest = max(missing, key=inside.index, default=inside[0])
        raise ValueError(
            f"{self.folder}: its files do not hold {furthest} as it was read; allowed: a "
            "model whose text weights are stored by their own names (no experts put together as they are read)"
        )

    def _heads(
        self, parameters: Mapping[str, Tensor], inside: Iterable[str], found: Mapping[str, list[Place]]
    ) -> dict[str, list[Place]]:
        """Finds what is outside the decoder, the output head; a tied head that is stored follows its embedding."""
        own = {name: value for name, value in parameters.items() if name not in found}
        places = {name: [self._place(key) for key in self._keys_of(name, value)] for name, value in own.items()}
        for name, value in own.items():
            if name in _HEADS and not places[name]:  # transformers may use another name than the file
                places[name] = [self._place(key) for head in _HEADS for key in self._keys_of(head, value)]
        for name, there in places.items():
            if not there:
                raise ValueError(f"{self.folder}: its files do not hold {name} as it was read")
        if not own:
            for name in inside:
                keys = [key for head in _HEADS for key in self._keys_of(head, parameters[name])]
                if keys:
                    places[name] = [*found[name], *map(self._place, keys)]
        return places

    def _keys_of(self, name: str, value: Tensor) -> list[str]:
        keys = [key for key in self._file_of if key == name or key.endswith(f".{name}")]
        return [key for key in keys if self._holds(key, value)]

    def _place(self, key: str) -> Place:
        return self._file_of[key], key

    def _holds(self, key: str, value: Tensor) -> bool:
        if key not in self._file_of:
            return False
        with safe_open(self.folder / self._file_of[key], "pt") as file:
            if tuple(file.get_slice(key).get_shape()) != tuple(value.shape):
                return False
            return torch.equal(file.get_tensor(key).to(value.dtype), value.cpu())

    def write(self, target: Path, values: Mapping[Place, Tensor], origin: Mapping[str, object]) -> None:
        """Writes the folder with these weights, completely or not at all; each keeps its stored type.

        Args:
            target: The folder to make; an existing one is replaced.
            values: Location -> value.
            origin: What it was made from, for ``repair.json``.
        """
        changed = {name for name, _ in values}
        with replacing_folder(target) as temporary:
            shutil.copytree(
                self.folder, temporary, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".git*", *TWICE, *changed)
            )
            for name in changed:
                with safe_open(self.folder / name, "pt") as file:
                    tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
                    metadata = file.metadata()
                for (own, key), value in values.items():
                    if own == name:
                        tensors[key] = value.detach().cpu().to(tensors[key].dtype).contiguous()
                save_file(tensors, temporary / name, metadata=metadata)
            write_json(dict(origin), temporary / REPAIR)
            follow_umask(temporary)
