"""The table of docs/scale.md: what the recipes take at 1B, 3B and 8B on 1, 8 and 16 GPUs, as `textkeep plan` counts it.

    python -m benchmarks.scale

The models are shapes: Llama 3.2 1B and 3B, Llama 3.1 8B, Whisper large-v3, without weights and without a download but
the small asset whose tokenizer stands in for Llama's (`textkeep assets smollm2-135m-instruct whisper-tiny.en`).
"""

from __future__ import annotations

import argparse
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, LlamaConfig, WhisperConfig, WhisperFeatureExtractor

from textkeep.datamodules import SpeechTextData
from textkeep.foundation.assets import resolve
from textkeep.lightning_modules import FullFineTuning, LoRA, SpeechLLM, Tuning
from textkeep.lightning_modules.ears.adaptors import ConcatMLP
from textkeep.lightning_modules.ears.encoders import WhisperEncoder
from textkeep.planning import Machine, Question, TrainerSettings
from textkeep.planning.largest import largest_budget
from textkeep.planning.meter import ACTIVATIONS
from textkeep.planning.moments import Moment
from textkeep.planning.rehearsal import Rehearsal

SHAPES: dict[str, dict[str, Any]] = {
    "1B": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
           "head_dim": 64, "tie_word_embeddings": True},
    "3B": {"hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28, "num_attention_heads": 24,
           "head_dim": 128, "tie_word_embeddings": True},
    "8B": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
           "head_dim": 128, "tie_word_embeddings": False},
}  # fmt: skip
WAYS: dict[str, tuple[str, str]] = {
    "full, bf16-mixed": ("full", "bf16-mixed"),
    "full, bf16-true": ("full", "bf16-true"),
    "LoRA, bf16-true": ("lora", "bf16-true"),
}
SYSTEM = (
    "You are a helpful language and speech assistant. You are able to understand the speech content that the user "
    "provides, and assist the user with a variety of tasks using natural language."
)
INSTRUCTION = "\nPlease directly answer the questions in the user's speech."
ROWS, EXAMPLES, GIB = 16, 148_688, 2**30
"""Rows of the recipes' batch; rows of yuekai/InstructS2S-200K's first turns, as icefall counts them."""


def rehearsal(size: str, tuning: str, precision: str, folder: Path) -> Rehearsal:
    """Builds a recipe on shapes."""
    AutoTokenizer.from_pretrained(resolve("asset:smollm2-135m-instruct")).save_pretrained(folder)
    LlamaConfig(**SHAPES[size], vocab_size=128256, num_key_value_heads=8).save_pretrained(folder)
    whisper = folder / "whisper"
    WhisperConfig(
        d_model=1280, encoder_layers=32, encoder_attention_heads=20, encoder_ffn_dim=5120, decoder_layers=1,
        decoder_attention_heads=20, decoder_ffn_dim=5120, num_mel_bins=128,
    ).save_pretrained(whisper)  # fmt: skip
    WhisperFeatureExtractor(feature_size=128).save_pretrained(whisper)
    way: Tuning = FullFineTuning() if tuning == "full" else LoRA(r=16)
    encoder, adaptor = WhisperEncoder(str(whisper)), ConcatMLP(stack=5, hidden=2048)
    model = SpeechLLM(str(folder), encoder, adaptor, way, gradient_checkpointing=True)
    data = SpeechTextData(
        tokens_per_batch=4096, max_examples_per_batch=ROWS, system=SYSTEM, speech_instruction=INSTRUCTION
    )
    return Rehearsal(model, data, [], TrainerSettings(precision, 2, 1.0, gpu=True), Question(), 1)


def line(size: str, name: str, machine: Machine) -> str:
    """Returns the table's line of a size and a way to tune it."""
    assert machine.usable is not None
    with tempfile.TemporaryDirectory() as folder:
        made = rehearsal(size, *WAYS[name], Path(folder))
        found = made.steps()
        kind = made.batches.kinds()[0]
        trained = cache(lambda budget: made.training(kind, budget))
        length, buckets = made.batches.length(kind), found.sizes.gradients
        step = found.moments[-1].total
        largest = [
            _rows(largest_budget(trained, ROWS * length, length, machine.usable - more), step + more, machine.usable)
            for more in (0, buckets)
        ]
    batch, alone = found.moments[0], found.highest.total
    hours = machine.seconds(batch.flops) / batch.rows * EXAMPLES / 3600
    figures = [
        found.sizes.gradients, found.sizes.optimizer, batch.parts[ACTIVATIONS], alone, alone + buckets
    ]  # fmt: skip
    cells = [size, name, *[f"{figure / GIB:.1f}" for figure in figures], *largest]
    return f"| {' | '.join(cells)} | {hours:.2g} | {hours / 8:.2g} | {hours / 16:.2g} |"


def _rows(largest: Moment | None, step: int, room: int) -> str:
    """Says how many rows fit, if the optimizer's step does too."""
    return "none" if largest is None or step > room else str(largest.rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    arguments = parser.parse_args()
    machine = Machine(memory=80 * 10**9)
    for size in arguments.sizes:
        for name in arguments.ways:
            print(line(size, name, machine), flush=True)


if __name__ == "__main__":
    main()
