"""The files beside the weights in a Hugging Face folder of Whisper."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .gguf_llama import write_json

MULTILINGUAL_VOCABULARY = 51865
"""Smallest vocabulary of a multilingual Whisper; the English ones have one token less."""


def model_config(
    state: Mapping[str, np.ndarray], layers: tuple[int, int], heads: int, tokens: Mapping[str, int]
) -> dict[str, Any]:
    """Makes the ``config.json`` of transformers' Whisper."""
    width, mels = state["model.encoder.conv1.weight"].shape[:2]
    end = tokens["<|endoftext|>"]
    sides = dict(zip(("encoder", "decoder"), layers, strict=True))
    return {
        "architectures": ["WhisperForConditionalGeneration"],
        "model_type": "whisper",
        "vocab_size": len(state["model.decoder.embed_tokens.weight"]),
        "num_mel_bins": mels,
        "d_model": width,
        **{f"{side}_layers": count for side, count in sides.items()},
        **{f"{side}_attention_heads": heads for side in sides},
        **{f"{side}_ffn_dim": len(state[f"model.{side}.layers.0.fc1.weight"]) for side in sides},
        "num_hidden_layers": sides["encoder"],
        "max_source_positions": len(state["model.encoder.embed_positions.weight"]),
        "max_target_positions": len(state["model.decoder.embed_positions.weight"]),
        "activation_function": "gelu",
        "scale_embedding": False,
        "is_encoder_decoder": True,
        "tie_word_embeddings": True,
        "bos_token_id": end,
        "eos_token_id": end,
        "pad_token_id": end,
        "decoder_start_token_id": tokens["<|startoftranscript|>"],
        "dtype": "float16",
    }


def generation_config(config: Mapping[str, Any], ct2: Mapping[str, Any], tokens: Mapping[str, int]) -> dict[str, Any]:
    """Makes the ``generation_config.json``: tokens to suppress, languages and tasks."""
    generation = {
        key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
    }
    multilingual = config["vocab_size"] >= MULTILINGUAL_VOCABULARY
    generation |= {
        "max_length": config["max_target_positions"],
        "max_initial_timestamp_index": 50,
        "return_timestamps": False,
        "no_timestamps_token_id": tokens["<|notimestamps|>"],
        "prev_sot_token_id": tokens["<|startofprev|>"],
        "is_multilingual": multilingual,
        "alignment_heads": ct2["alignment_heads"],
        "suppress_tokens": [token for token in ct2["suppress_ids"] if token >= 0],
        "begin_suppress_tokens": ct2["suppress_ids_begin"],
    }
    if multilingual:
        languages = set(ct2["lang_ids"])
        generation["lang_to_id"] = {text: number for text, number in tokens.items() if number in languages}
        generation["task_to_id"] = {task: tokens[f"<|{task}|>"] for task in ("transcribe", "translate")}
    return generation


def write_processor(tokenizer_json: Path, mels: int, out: Path) -> None:
    """Writes tokenizer and feature extractor, with the files that a slow tokenizer wants too."""
    shutil.copyfile(tokenizer_json, out / "tokenizer.json")
    tokenizer = json.loads(tokenizer_json.read_text(encoding="utf-8"))
    added = [token["content"] for token in tokenizer["added_tokens"]]
    extractor: dict[str, Any] = {
        "feature_extractor_type": "WhisperFeatureExtractor",
        "processor_class": "WhisperProcessor",
    }
    extractor |= {"feature_size": mels, "sampling_rate": 16000, "hop_length": 160, "n_fft": 400, "chunk_length": 30}
    extractor |= {"n_samples": 480000, "nb_max_frames": 3000, "padding_side": "right", "padding_value": 0.0}
    write_json(out / "preprocessor_config.json", extractor | {"return_attention_mask": False})
    end = "<|endoftext|>"
    config: dict[str, Any] = {"tokenizer_class": "WhisperTokenizer", "processor_class": "WhisperProcessor"}
    config |= {"add_prefix_space": False}
    config |= {f"{name}_token": end for name in ("bos", "eos", "unk", "pad")}
    config |= {"model_max_length": 1024, "clean_up_tokenization_spaces": False}
    # Time stamps, such as <|0.00|>, are ordinary added tokens.
    special = [token for token in added if token != end and not token[2:3].isdigit()]
    write_json(out / "tokenizer_config.json", config | {"additional_special_tokens": special})
    write_json(out / "vocab.json", tokenizer["model"]["vocab"])
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in tokenizer["model"]["merges"]]
    (out / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
