"""How an adaptor begins: from a file, or with values of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ..llm.pretrained import weights_are_read
from ..precision import at_least_float32, default_dtype
from ..saving.adaptor_file import load_adaptor
from .adaptors import Adaptor
from .encoders import SpeechEncoder

ROWS = 4096
"""Rows of the embedding table that are read at once."""


def begin_adaptor(
    adaptor: Adaptor, encoder: SpeechEncoder, llm: Any, vocabulary: int, weights: Path | None = None
) -> None:
    """Builds an adaptor between encoder and LLM, in torch's default type, with its first values if these have weights.

    Args:
        adaptor: To be built in place.
        encoder: With its weights.
        llm: With its weights.
        vocabulary: Number of token ids that have an embedding in use.
        weights: A file that :func:`save_adaptor` wrote, to begin from; None draws weights, at the LLM's embedding norm.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file does not belong to this adaptor behind this encoder.
    """
    with default_dtype(torch.float32):  # weights are drawn as in 32-true: bfloat16 would draw from 256 values
        adaptor.build(encoder.output_dim, llm.get_input_embeddings().weight.shape[1])
    adaptor.to(torch.get_default_dtype())
    if not weights_are_read():
        return
    if weights is None:
        start_at_embedding_norm(adaptor, encoder, llm, vocabulary)
    else:
        load_adaptor(weights, adaptor, encoder, llm.get_input_embeddings().weight)


@torch.no_grad()
def start_at_embedding_norm(adaptor: Adaptor, encoder: SpeechEncoder, llm: Any, vocabulary: int) -> None:
    """Scales the adaptor's output to the mean norm of the LLM's text embeddings, measured on a second of quiet noise.

    Args:
        adaptor: Built, with random weights.
        encoder: With its weights; left in eval mode.
        llm: Any Hugging Face causal LM.
        vocabulary: Number of token ids that have an embedding in use.
    """
    device = next(encoder.parameters()).device
    table = llm.get_input_embeddings()
    # Gemma 3's text models have fewer rows than their tokenizer, which they share with the others, has tokens.
    ids = torch.arange(min(vocabulary, table.weight.shape[0]), device=llm.device)
    # In parts: the whole table at once would be a copy of it, in float32, which is the highest memory of some runs.
    norm = torch.cat([at_least_float32(table(part)).norm(dim=-1) for part in ids.split(ROWS)]).mean()
    generator = torch.Generator("cpu").manual_seed(0)  # while Lightning makes the GPU the default device
    with default_dtype(torch.float32):  # and the run's precision the default type, which no extractor can work in
        noise = torch.randn(encoder.sampling_rate, generator=generator, device="cpu") * 0.01
        features = encoder.extractor()(noise)[None].to(device)
    lengths = torch.tensor([features.shape[-1]], device=device)
    adaptor.scale_output_to(float(norm), encoder.eval()(features, lengths)[0])
