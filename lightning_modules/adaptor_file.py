"""An adaptor as one safetensors file: its weights, and in the header what it fits to."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from .adaptors import Adaptor

REMEDIES = {
    "adaptor": "that class as model.adaptor",
    "stack": "that number as model.adaptor.init_args.stack",
    "encoder": "the encoder that it was trained behind as model.encoder",
}
"""What lets an adaptor's file fit, by the entry of its header that differs."""


def save_adaptor(
    path: Path, adaptor: Adaptor, encoder_fingerprint: str, llm: str, dtype: torch.dtype = torch.float16
) -> None:
    """Writes the adaptor to a temporary name and renames it.

    Args:
        path: The safetensors file to make.
        adaptor: A built adaptor.
        encoder_fingerprint: Of the encoder it was trained behind.
        llm: The LLM it was trained for.
        dtype: On disk; half precision loses nothing that training would notice.
    """
    weights = {name: tensor.detach().cpu().to(dtype).contiguous() for name, tensor in adaptor.state_dict().items()}
    header = {
        "format": "textkeep-adaptor-1",
        "adaptor": type(adaptor).__name__,
        "stack": str(adaptor.stack),
        "encoder": encoder_fingerprint,
        "llm": llm,
    }
    temporary = path.with_name(path.name + ".tmp")
    save_file(weights, temporary, metadata=header)
    os.replace(temporary, path)


def load_adaptor(path: Path, adaptor: Adaptor, encoder_fingerprint: str) -> None:
    """Reads weights into a built adaptor.

    Args:
        path: A file that :func:`save_adaptor` made.
        adaptor: Built, of the same class and sizes.
        encoder_fingerprint: Of the encoder it will stand behind.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is of another adaptor class, encoder or size; the message names the difference.
    """
    if not path.is_file():
        raise FileNotFoundError(f"adaptor_weights: no file {path}")
    with safe_open(path, framework="pt") as file:
        header = file.metadata() or {}
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    wanted = {"adaptor": type(adaptor).__name__, "stack": str(adaptor.stack), "encoder": encoder_fingerprint}
    for key, value in wanted.items():
        if header.get(key) != value:
            raise ValueError(
                f"adaptor_weights: {path.name} was made for {key} {header.get(key)!r}, not {value!r}; allowed: "
                f"{REMEDIES[key]}, or model.adaptor_weights: null to train a new adaptor"
            )
    state = adaptor.state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if shapes != found:
        name = next(n for n in {**shapes, **found} if shapes.get(n) != found.get(n))
        raise ValueError(
            f"adaptor_weights: {path.name} does not fit: '{name}' is {found.get(name)} there, {shapes.get(name)} here"
        )
    adaptor.load_state_dict({name: tensor.to(state[name].dtype) for name, tensor in weights.items()})
