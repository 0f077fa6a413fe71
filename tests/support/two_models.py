"""A tiny audio LLM, the text LLM that it came from, and questions, written and spoken."""

from __future__ import annotations

import json
from pathlib import Path

import soundfile
import torch
from transformers import AutoModelForMultimodalLM, AutoTokenizer

from textkeep.lightning_modules.llm.carving import carve

from .tiny_audio_llms import write_tiny_audio_llm

FAMILY = "qwen3_asr"


def write_two_models(folder: Path) -> Path:
    """Writes ``audio`` with its processor and ``base``, both in bfloat16, and ``facts.jsonl`` with its clips.

    The second layer and the embeddings of the audio LLM have moved away from the base's.
    """
    write_tiny_audio_llm(FAMILY, folder / "audio")
    tokenizer = AutoTokenizer.from_pretrained(folder / "audio")
    whole = AutoModelForMultimodalLM.from_pretrained(folder / "audio", dtype=torch.bfloat16)
    carve(whole).save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in carve(whole).named_parameters():
            if "layers.1" in name or "embed_tokens" in name:
                parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator).to(parameter))
    whole.save_pretrained(folder / "audio")
    for i in range(6):
        noise = 0.1 * torch.randn(16000 + 1600 * i, generator=torch.Generator().manual_seed(i))
        soundfile.write(folder / f"q{i}.wav", noise.numpy(), 16000)
    lines = [
        {"id": f"q{i}", "question": f"What is {i}?", "answers": [f"Lima {i}"], "audio": f"q{i}.wav"} for i in range(6)
    ]
    (folder / "facts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder
