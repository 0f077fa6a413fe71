"""A Whisper in CTranslate2's format (as faster-whisper uses it), turned into a Hugging Face folder."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ...foundation.errors import UserError
from .gguf_llama import write_json
from .whisper_folder import generation_config, model_config, write_processor

DTYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
Arrays = dict[str, np.ndarray]

HEAD_SIZE = 64
"""What every Whisper has."""


def read_ct2(file: BinaryIO) -> tuple[str, Arrays]:
    """Reads CTranslate2's binary format: a header, named arrays, then aliases.

    Args:
        file: At its beginning.

    Returns:
        Name of the model's specification, and arrays by name.

    Raises:
        UserError: If the file is of an older format or does not end where it should.
    """

    def number(kind: str) -> int:
        return int(struct.unpack(f"<{kind}", file.read(struct.calcsize(kind)))[0])

    def string() -> str:
        return file.read(number("H"))[:-1].decode()

    version = number("I")
    if version < 5:
        raise UserError(f"assets: CTranslate2 model of format {version}; 5 or newer is needed")
    specification, _ = string(), number("I")
    arrays: Arrays = {}
    for _ in range(number("I")):
        name = string()
        shape = [number("I") for _ in range(number("B"))]
        dtype, size = DTYPES[number("B")], number("I")
        arrays[name] = np.frombuffer(file.read(size), dtype=dtype).reshape(shape)
    for _ in range(number("I")):
        alias = string()
        arrays[alias] = arrays[string()]
    if file.read(1):
        raise UserError("assets: CTranslate2 model has bytes left over; it is damaged or of a newer format")
    return specification, arrays


class _Names:
    """Gathers arrays under Hugging Face's names."""

    def __init__(self, source: Arrays):
        self.source = source
        self.state: Arrays = {}

    def weight(self, name: str) -> np.ndarray:
        """Returns a weight; one in int8 carries a scale for each row."""
        array = self.source[f"{name}/weight"]
        if array.dtype == np.int8:
            array = array.astype(np.float32) / self.source[f"{name}/weight_scale"][:, None].astype(np.float32)
        return array

    def linear(self, target: str, source: str) -> None:
        """Gives the weights of a linear or convolution layer."""
        self.state[f"{target}.weight"] = self.weight(source)
        self.state[f"{target}.bias"] = self.source[f"{source}/bias"]

    def norm(self, target: str, source: str) -> None:
        """Gives the weights of a layer norm."""
        self.state[f"{target}.weight"] = self.source[f"{source}/gamma"]
        self.state[f"{target}.bias"] = self.source[f"{source}/beta"]

    def projections(self, target: str, source: str, letters: str) -> None:
        """Gives the fused projections of attention one after the other; Whisper's keys have no bias."""
        weights = np.split(self.weight(source), len(letters))
        biases = np.split(self.source[f"{source}/bias"], len(letters))
        for letter, weight, bias in zip(letters, weights, biases, strict=True):
            self.state[f"{target}.{letter}_proj.weight"] = weight
            if letter != "k":
                self.state[f"{target}.{letter}_proj.bias"] = bias
            elif bias.any():
                raise UserError("assets: a Whisper whose keys have a bias cannot be converted")


def _layers(arrays: Arrays, side: str) -> int:
    prefix = f"{side}/layer_"
    numbers = [name[len(prefix) :].split("/")[0] for name in arrays if name.startswith(prefix)]
    return 1 + max(int(number) for number in numbers if number.isdecimal())


def to_hugging_face(arrays: Arrays) -> tuple[Arrays, int, int]:
    """Names the arrays as ``WhisperForConditionalGeneration`` does, and counts encoder and decoder layers."""
    names = _Names(arrays)
    names.linear("model.encoder.conv1", "encoder/conv1")
    names.linear("model.encoder.conv2", "encoder/conv2")
    names.state["model.decoder.embed_tokens.weight"] = names.weight("decoder/embeddings")
    counts = {side: _layers(arrays, side) for side in ("encoder", "decoder")}
    for side, count in counts.items():
        positions = arrays[f"{side}/position_encodings/encodings"]
        names.state[f"model.{side}.embed_positions.weight"] = positions
        names.norm(f"model.{side}.layer_norm", f"{side}/layer_norm")
        for number in range(count):
            target, source = f"model.{side}.layers.{number}", f"{side}/layer_{number}"
            names.norm(f"{target}.self_attn_layer_norm", f"{source}/self_attention/layer_norm")
            names.projections(f"{target}.self_attn", f"{source}/self_attention/linear_0", "qkv")
            names.linear(f"{target}.self_attn.out_proj", f"{source}/self_attention/linear_1")
            if side == "decoder":
                names.norm(f"{target}.encoder_attn_layer_norm", f"{source}/attention/layer_norm")
                names.linear(f"{target}.encoder_attn.q_proj", f"{source}/attention/linear_0")
                names.projections(f"{target}.encoder_attn", f"{source}/attention/linear_1", "kv")
                names.linear(f"{target}.encoder_attn.out_proj", f"{source}/attention/linear_2")
            names.norm(f"{target}.final_layer_norm", f"{source}/ffn/layer_norm")
            names.linear(f"{target}.fc1", f"{source}/ffn/linear_0")
            names.linear(f"{target}.fc2", f"{source}/ffn/linear_1")
    return names.state, counts["encoder"], counts["decoder"]


def _find(folders: Sequence[Path], name: str) -> Path | None:
    return next((path for folder in folders for path in sorted(folder.rglob(name))), None)


def _required(folders: Sequence[Path], name: str) -> Path:
    path = _find(folders, name)
    if path is None:
        raise UserError(f"assets: no {name} in {', '.join(folder.name for folder in folders)}")
    return path


def read_model(folders: Sequence[Path]) -> Arrays:
    """Reads the arrays of ``model.bin``, or of ``model.bin.part1``, ``.part2`` and so on joined.

    Raises:
        UserError: If it is not there or is not a Whisper.
    """
    parts = [found] if (found := _find(folders, "model.bin")) else []
    while not found and (part := _find(folders, f"model.bin.part{len(parts) + 1}")):
        parts.append(part)
    if not parts:
        _required(folders, "model.bin")
    specification, arrays = read_ct2(io.BytesIO(b"".join(part.read_bytes() for part in parts)))
    if specification != "WhisperSpec":
        raise UserError(f"assets: the CTranslate2 model is a {specification}, not a Whisper")
    return arrays


def convert_ct2(folders: Sequence[Path], out: Path) -> None:
    """Turns a CTranslate2 Whisper into a folder for transformers' Whisper classes; weights keep their precision.

    Args:
        folders: Searched for the model, ``config.json`` and ``tokenizer.json``.
        out: An existing folder.

    Raises:
        UserError: If a file is missing or of another kind.
    """
    import torch
    from safetensors.torch import save_file

    from ...foundation.files import follow_umask

    arrays = read_model(folders)
    state, *layers = to_hugging_face(arrays)
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in state.items()}
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    follow_umask(out / "model.safetensors")
    tokenizer_json = _required(folders, "tokenizer.json")
    added = json.loads(tokenizer_json.read_text(encoding="utf-8"))["added_tokens"]
    tokens = {token["content"]: int(token["id"]) for token in added}
    width = state["model.encoder.conv1.weight"].shape[0]
    heads = int(arrays["encoder/num_heads"].ravel()[0]) if "encoder/num_heads" in arrays else width // HEAD_SIZE
    config = model_config(state, (layers[0], layers[1]), heads, tokens)
    write_json(out / "config.json", config)
    ct2 = json.loads(_required(folders, "config.json").read_text(encoding="utf-8"))
    write_json(out / "generation_config.json", generation_config(config, ct2, tokens))
    write_processor(tokenizer_json, config["num_mel_bins"], out)
