"""An adaptor as one safetensors file: its weights, and in the header what it was made for."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ...foundation.files import replacing
from ..ears.adaptors import Adaptor
from ..ears.encoders import SpeechEncoder
from ..ears.encoders.weights_digest import raw_bytes

SAMPLES = 2**16
"""Values of an LLM's table of embeddings that name it."""
ADAPTOR = Path("speech", "adaptor.safetensors")
"""Where it lies in an export."""
ENCODER = Path("speech", "encoder.safetensors")
"""Where an encoder that was trained along lies."""
REMEDIES = {
    "adaptor": "that class as model.adaptor",
    "stack": "that number as model.adaptor.init_args.stack",
}
"""What makes an adaptor file usable, by the header entry that differs."""


def save_adaptor(
    path: Path,
    adaptor: Adaptor,
    encoder: SpeechEncoder,
    llm: str,
    dtype: torch.dtype = torch.float16,
    words: Tensor | None = None,
) -> None:
    """Writes the adaptor, whole or not at all.

    Args:
        path: The safetensors file to make.
        adaptor: A built adaptor.
        encoder: The encoder it was trained behind, including its weights; if it was trained along, that is recorded.
        llm: The LLM it was trained for.
        dtype: On disk; half precision loses nothing that training would notice.
        words: (V, H) the LLM's table of embeddings, among which the adaptor's positions stand: it names the LLM.
    """
    weights = {name: tensor.detach().cpu().to(dtype).contiguous() for name, tensor in adaptor.state_dict().items()}
    header = {
        "format": "textkeep-adaptor-1",
        "adaptor": type(adaptor).__name__,
        "stack": str(adaptor.stack),
        "encoder": encoder.name,
        "encoder_identity": encoder.identity,
        "llm": llm,
    }
    if encoder_trained(encoder):
        header["encoder_trained"] = "true"
    if words is not None:
        header["llm_identity"] = identity_of(words)
    with replacing(path) as temporary:
        temporary.write_bytes(save(weights, header))  # save_file() would make it private


def encoder_trained(encoder: SpeechEncoder) -> bool:
    """Tells whether an encoder was trained along, so that its weights are no longer those of its source."""
    return any(parameter.requires_grad for parameter in encoder.parameters())


def identity_of(words: Tensor) -> str:
    """Names an LLM by the table of its embeddings (V, H): shape, and a part of the values in bfloat16.

    It is the same whether the weights were loaded in 16, 32 or 64 bits.
    """
    flat = words.detach().flatten()
    some = flat[:: max(1, flat.numel() // SAMPLES)].to("cpu", torch.bfloat16)
    return hashlib.sha256(f"{tuple(words.shape)}".encode() + raw_bytes(some)).hexdigest()


def load_adaptor(path: Path, adaptor: Adaptor, encoder: SpeechEncoder, words: Tensor | None = None) -> None:
    """Reads weights into a built adaptor; warns if it was trained for another LLM, as far as the file knows.

    The encoder is identified by its weights, so that its folder may be moved or renamed; older files without this
    record are checked by its name.

    Args:
        path: A file that :func:`save_adaptor` made.
        adaptor: Built, of the same class and sizes.
        encoder: What it will stand behind, with its weights.
        words: (V, H) the table of embeddings of the LLM that it will stand before.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not an adaptor's, or has another adaptor class, encoder or size; the message names
            the difference.
    """
    if not path.is_file():
        raise FileNotFoundError(f"adaptor_weights: no file {path}")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except SafetensorError as error:
        raise ValueError(f"adaptor_weights: {path} is no whole safetensors file ({error})") from None
    for key, value in {"adaptor": type(adaptor).__name__, "stack": str(adaptor.stack)}.items():
        if header.get(key) != value:
            raise ValueError(
                f"adaptor_weights: {path.name} was made for {key} {header.get(key)!r}, not {value!r}; allowed: "
                f"{REMEDIES[key]}, or model.adaptor_weights: null to train a new adaptor"
            )
    _check_encoder(path, header, encoder)
    state = adaptor.state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if shapes != found:
        name = next(n for n in {**shapes, **found} if shapes.get(n) != found.get(n))
        raise ValueError(
            f"adaptor_weights: {path.name} does not fit: '{name}' is {found.get(name)} there, {shapes.get(name)} here"
        )
    known = header.get("llm_identity")
    if known and words is not None and known != identity_of(words):
        rank_zero_warn(
            f"adaptor_weights: {path.name} was trained for other weights of an LLM ({header.get('llm')}) than those of "
            "model.llm, whose embeddings differ: its positions mean nothing there until it has learned anew"
        )
    adaptor.load_state_dict({name: tensor.to(state[name].dtype) for name, tensor in weights.items()})


def _check_encoder(path: Path, header: Mapping[str, str], encoder: SpeechEncoder) -> None:
    made_for, identity = header.get("encoder"), header.get("encoder_identity")
    if identity == encoder.identity if identity else made_for == encoder.name:
        return
    if header.get("encoder_trained"):
        difference = "was trained along with it and is not in the file (textkeep export keeps both)"
    else:
        difference = "holds other weights now" if made_for == encoder.name else f"is not {encoder.name!r}"
    raise ValueError(
        f"adaptor_weights: {path.name} was made for encoder {made_for!r}, which {difference}; "
        "allowed: the encoder that it was trained behind as model.encoder, "
        "or model.adaptor_weights: null to train a new adaptor"
    )
