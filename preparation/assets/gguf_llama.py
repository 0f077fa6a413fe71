"""A Llama in one GGUF file, turned into an ordinary Hugging Face folder.

For any GGUF whose architecture is ``llama`` and whose tokenizer is byte-level BPE (GPT-2). transformers can read such a
file itself, but slowly, and refuses to save what it read.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...foundation.errors import UserError

if TYPE_CHECKING:
    import torch
    from gguf import GGUFReader

LAYER = r"^blk\.(\d+)\."
NAMES = (
    (r"^token_embd\.weight$", "model.embed_tokens.weight"),
    (r"^output_norm\.weight$", "model.norm.weight"),
    (r"^output\.weight$", "lm_head.weight"),
    (LAYER + r"attn_norm\.weight$", r"model.layers.\1.input_layernorm.weight"),
    (LAYER + r"ffn_norm\.weight$", r"model.layers.\1.post_attention_layernorm.weight"),
    (LAYER + r"attn_(q|k|v)\.weight$", r"model.layers.\1.self_attn.\2_proj.weight"),
    (LAYER + r"attn_output\.weight$", r"model.layers.\1.self_attn.o_proj.weight"),
    (LAYER + r"ffn_(gate|up|down)\.weight$", r"model.layers.\1.mlp.\2_proj.weight"),
)
NOT_WEIGHTS = frozenset({"rope_freqs.weight"})
DIGITS_APART = frozenset({"smollm", "starcoder", "refact", "command-r"})
"""Pre-tokenizers of llama.cpp that split numbers into digits."""

SPECIAL_TYPES = frozenset({3, 4})
"""GGUF's token types CONTROL and USER_DEFINED."""


def field(reader: GGUFReader, key: str, default: Any = None) -> Any:
    """Returns a value of the file's header."""
    found = reader.get_field(key)
    return default if found is None else found.contents()


def hugging_face_name(name: str) -> str:
    """Returns the name of a GGUF tensor in transformers' Llama.

    Raises:
        UserError: If it is unknown.
    """
    for pattern, replacement in NAMES:
        if re.match(pattern, name):
            return re.sub(pattern, replacement, name)
    raise UserError(f"assets: unknown tensor {name!r} in a GGUF file of a Llama")


def unpermute(weight: np.ndarray, heads: int) -> np.ndarray:
    """Undoes llama.cpp's order of the rows of queries and keys.

    Its rotary embedding pairs neighbouring rows of a head, transformers' pairs a row with the one half a head further.

    Args:
        weight: Shape (heads * head size, columns).
        heads: Number of heads.
    """
    half = weight.shape[0] // heads // 2
    return weight.reshape(heads, half, 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def read_weights(reader: GGUFReader) -> dict[str, torch.Tensor]:
    """Reads all weights, dequantised, in float16."""
    import torch
    from gguf import dequantize

    heads = int(field(reader, "llama.attention.head_count"))
    key_heads = int(field(reader, "llama.attention.head_count_kv", heads))
    weights = {}
    for tensor in reader.tensors:
        if tensor.name in NOT_WEIGHTS:
            continue
        name = hugging_face_name(tensor.name)
        weight = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        weight = weight.reshape(tuple(int(size) for size in reversed(tensor.shape)))
        if ".q_proj." in name or ".k_proj." in name:
            weight = unpermute(weight, heads if ".q_proj." in name else key_heads)
        weights[name] = torch.from_numpy(np.ascontiguousarray(weight)).to(torch.float16)
    return weights


def special_ids(reader: GGUFReader) -> dict[str, int]:
    """Finds the ids of the begin, end, padding and unknown tokens."""
    end = int(field(reader, "tokenizer.ggml.eos_token_id", 2))
    return {
        "bos": int(field(reader, "tokenizer.ggml.bos_token_id", 1)),
        "eos": end,
        "pad": int(field(reader, "tokenizer.ggml.padding_token_id", end)),
        "unk": int(field(reader, "tokenizer.ggml.unknown_token_id", 0)),
    }


def model_config(reader: GGUFReader, tied: bool) -> dict[str, Any]:
    """Makes the ``config.json`` of transformers' Llama."""

    def get(key: str, default: Any = None) -> Any:
        return field(reader, f"llama.{key}", default)

    hidden, heads = int(get("embedding_length")), int(get("attention.head_count"))
    ids = special_ids(reader)
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": int(get("feed_forward_length")),
        "num_hidden_layers": int(get("block_count")),
        "num_attention_heads": heads,
        "num_key_value_heads": int(get("attention.head_count_kv", heads)),
        "head_dim": hidden // heads,
        "hidden_act": "silu",
        "rms_norm_eps": round(float(get("attention.layer_norm_rms_epsilon", 1e-5)), 9),
        "max_position_embeddings": int(get("context_length")),
        "rope_parameters": {"rope_type": "default", "rope_theta": float(get("rope.freq_base", 10000.0))},
        "vocab_size": len(field(reader, "tokenizer.ggml.tokens")),
        "tie_word_embeddings": tied,
        "attention_bias": False,
        "mlp_bias": False,
        **{f"{name}_token_id": ids[name] for name in ("bos", "eos", "pad")},
        "dtype": "float16",
    }


def write_tokenizer(reader: GGUFReader, out: Path) -> None:
    """Writes ``tokenizer.json`` and its companions, built from the vocabulary and merges in the header.

    Raises:
        UserError: If the tokenizer is of another kind.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    if field(reader, "tokenizer.ggml.model") != "gpt2":
        raise UserError("assets: only byte-level BPE tokenizers can be read out of a GGUF file")
    tokens = list(field(reader, "tokenizer.ggml.tokens"))
    kinds = field(reader, "tokenizer.ggml.token_type", [1] * len(tokens))
    merges = [tuple(merge.split(" ", 1)) for merge in field(reader, "tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    steps: list[pre_tokenizers.PreTokenizer] = [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
    if field(reader, "tokenizer.ggml.pre", "default") in DIGITS_APART:
        steps.insert(0, pre_tokenizers.Digits(individual_digits=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    special = [token for token, kind in zip(tokens, kinds, strict=True) if int(kind) in SPECIAL_TYPES]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer.save(str(out / "tokenizer.json"))
    names = {f"{name}_token": tokens[i] for name, i in special_ids(reader).items()}
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **names,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": int(field(reader, "llama.context_length")),
        "additional_special_tokens": special,
    }
    template = field(reader, "tokenizer.chat_template")
    if template:
        (out / "chat_template.jinja").write_text(template, encoding="utf-8")
    write_json(out / "tokenizer_config.json", config)
    write_json(out / "special_tokens_map.json", names)


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file that people can read."""
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def convert_gguf(path: Path, out: Path) -> None:
    """Turns a GGUF file into a folder for ``AutoModelForCausalLM`` and ``AutoTokenizer``.

    Args:
        path: The file.
        out: An existing folder.

    Raises:
        UserError: If the architecture or tokenizer is not supported.
    """
    from gguf import GGUFReader
    from safetensors.torch import save_file

    from ...foundation.files import follow_umask

    reader = GGUFReader(path)
    architecture = field(reader, "general.architecture")
    if architecture != "llama":
        raise UserError(f"assets: {path.name} is a {architecture}; only the llama architecture can be converted")
    weights = read_weights(reader)
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    follow_umask(out / "model.safetensors")
    config = model_config(reader, tied="lm_head.weight" not in weights)
    write_json(out / "config.json", config)
    ids = {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    write_json(out / "generation_config.json", ids)
    write_tokenizer(reader, out)
