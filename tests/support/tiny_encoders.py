"""Random encoders of every family that is supported, small enough for a test to hold them all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import Wav2Vec2FeatureExtractor

from textkeep.lightning_modules import HFEncoder, SpeechEncoder, WhisperEncoder

_SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "conv_dim": (16, 16, 16),
    "conv_kernel": (10, 3, 2),
    "conv_stride": (5, 2, 2),
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
_CONFORMER: dict[str, Any] = {"conv_depthwise_kernel_size": 5}

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    **{
        f"{family}-{norm}{'-stable' if stable else ''}": (
            family,
            {"feat_extract_norm": norm, "do_stable_layer_norm": stable},
        )
        for family in ("Wav2Vec2", "Hubert", "WavLM", "UniSpeech", "UniSpeechSat")
        for norm, stable in (("group", False), ("layer", True))
    },
    "Wav2Vec2-layer": ("Wav2Vec2", {"feat_extract_norm": "layer"}),
    "Wav2Vec2-downsampling": ("Wav2Vec2", {"add_adapter": True}),
    "Hubert-batch-norm": ("Hubert", {"conv_pos_batch_norm": True}),
    "Data2VecAudio": ("Data2VecAudio", {"num_conv_pos_embeddings": 3, "conv_pos_kernel_size": 7}),
    "Conformer-relative-group": ("Wav2Vec2Conformer", {**_CONFORMER, "position_embeddings_type": "relative"}),
    "Conformer-rotary-layer": (
        "Wav2Vec2Conformer",
        {**_CONFORMER, "position_embeddings_type": "rotary", "feat_extract_norm": "layer"},
    ),
}
"""Name -> transformers' prefix of the classes, and what differs from the tiny sizes."""


def save_waveform_encoder(folder: Path, family: str, **settings: Any) -> Path:
    """A checkpoint of random weights, none of which is at a value that would hide it (norms of 1, biases of 0)."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**{**_SIZES, **settings})
    model = getattr(transformers, f"{family}Model")(config)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.GroupNorm):
                module.weight.normal_()
                module.bias.normal_()
            if isinstance(module, nn.BatchNorm1d) and module.running_mean is not None:
                module.running_mean.normal_()
    model.save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
    return folder


def loaded(encoder: SpeechEncoder, dtype: torch.dtype = torch.float64) -> SpeechEncoder:
    """The encoder with its weights, in eval mode."""
    encoder.load()
    return encoder.to(dtype).eval()


def make_encoder(name: str, folder: Path, whisper: Path) -> SpeechEncoder:
    """An encoder by name: one of ``FAMILIES``, or Whisper at true length or padded."""
    if name.startswith("Whisper"):
        return loaded(WhisperEncoder(str(whisper), padded=name == "Whisper-padded"))
    family, settings = FAMILIES[name]
    return loaded(HFEncoder(str(save_waveform_encoder(folder / name, family, **settings))))
