"""The table of docs/scale.md: what the recipes need at 1B, 3B and 8B on 1, 8 and 16 GPUs, according to `textkeep plan`.

    python -m benchmarks.scale
    python -m benchmarks.scale --shapes outputs/shapes

The models are shapes: Llama 3.2 1B and 3B, Llama 3.1 8B, Whisper large-v3, without weights and without a download but
the small asset whose tokenizer stands in for Llama's (`textkeep assets smollm2-135m-instruct whisper-tiny.en`). Rows of
8-bit AdamW need `textkeep[adamw-8bit]`. What has been planned is kept in a file, and not planned again. `--shapes`
writes the models into a folder instead, for
`textkeep plan --model.llm outputs/shapes/8B --model.encoder.init_args.source outputs/shapes/whisper`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
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
from textkeep.planning.meter import ACTIVATIONS, OPTIMIZER, WEIGHTS
from textkeep.planning.pretended_ranks import pretended_ranks
from textkeep.planning.rehearsal import Rehearsal

SHAPES: dict[str, dict[str, Any]] = {
    "1B": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
           "head_dim": 64, "tie_word_embeddings": True},
    "3B": {"hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28, "num_attention_heads": 24,
           "head_dim": 128, "tie_word_embeddings": True},
    "8B": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
           "head_dim": 128, "tie_word_embeddings": False},
}  # fmt: skip


@dataclass(frozen=True)
class Way:
    """How a model is trained, and on how many GPUs."""

    tuning: str
    precision: str
    ranks: int = 1
    replicas: int | None = None
    optimizer: str = "torch.optim.AdamW"


WAYS = {
    "full, bf16-mixed": Way("full", "bf16-mixed"),
    "full, bf16-true": Way("full", "bf16-true"),
    "full, bf16-mixed, 8-bit AdamW": Way("full", "bf16-mixed", optimizer="bitsandbytes.optim.AdamW8bit"),
    "full, bf16-true, 8-bit AdamW": Way("full", "bf16-true", optimizer="bitsandbytes.optim.AdamW8bit"),
    "LoRA, bf16-true": Way("lora", "bf16-true"),
    "full, bf16-mixed, FSDP2 on 8": Way("full", "bf16-mixed", 8, 1),
    "full, bf16-mixed, FSDP2 on 16": Way("full", "bf16-mixed", 16, 1),
}
SYSTEM = (
    "You are a helpful language and speech assistant. You are able to understand the speech content that the user "
    "provides, and assist the user with a variety of tasks using natural language."
)
INSTRUCTION = "\nPlease directly answer the questions in the user's speech."
ROWS, EXAMPLES, GIB = 16, 148_688, 2**30
MEMORY, LARGE = 80 * 10**9, 141 * 10**9
LASTING = (WEIGHTS, OPTIMIZER)
"""Rows of the recipes' batch; rows of yuekai/InstructS2S-200K's first turns, as icefall counts them."""


def write_shapes(folder: Path, sizes: Iterable[str]) -> None:
    """Writes configurations and tokenizers as a hub has them, one folder a model."""
    tokenizer = AutoTokenizer.from_pretrained(resolve("asset:smollm2-135m-instruct"))
    for size in sizes:
        tokenizer.save_pretrained(folder / size)
        LlamaConfig(**SHAPES[size], vocab_size=128256, num_key_value_heads=8).save_pretrained(folder / size)
    WhisperConfig(
        d_model=1280, encoder_layers=32, encoder_attention_heads=20, encoder_ffn_dim=5120, decoder_layers=1,
        decoder_attention_heads=20, decoder_ffn_dim=5120, num_mel_bins=128,
    ).save_pretrained(folder / "whisper")  # fmt: skip
    WhisperFeatureExtractor(feature_size=128).save_pretrained(folder / "whisper")


def rehearsal(size: str, way: Way, folder: Path) -> Rehearsal:
    """Builds a recipe on shapes."""
    write_shapes(folder, [size])
    tuning: Tuning = FullFineTuning() if way.tuning == "full" else LoRA(r=16)
    encoder, adaptor = WhisperEncoder(str(folder / "whisper")), ConcatMLP(stack=5, hidden=2048)
    module, _, name = way.optimizer.rpartition(".")
    optimizer = getattr(import_module(module), name)
    model = SpeechLLM(str(folder / size), encoder, adaptor, tuning, optimizer=optimizer, gradient_checkpointing=True)
    data = SpeechTextData(
        tokens_per_batch=4096, max_examples_per_batch=ROWS, system=SYSTEM, speech_instruction=INSTRUCTION
    )
    settings = TrainerSettings(way.precision, 2, 1.0, gpu=True, replicas=way.replicas)
    return Rehearsal(model, data, [], settings, Question(), way.ranks)


def figures(size: str, way: Way, search: bool) -> dict[str, float]:
    """Plans training: bytes of a rank, operations, and, if it is searched for, the rows that fit a GPU."""
    started = time.process_time()
    with tempfile.TemporaryDirectory() as folder, pretended_ranks(way.ranks, way.replicas):
        made = rehearsal(size, way, Path(folder))
        found, kind = made.steps(), made.batches.kinds()[0]
        trained, length = cache(lambda budget: made.training(kind, budget)), made.batches.length(kind)
        batch, step, usable = found.moments[0], found.moments[-1].total, Machine(memory=MEMORY).usable
        assert usable is not None
        buckets = 0 if way.replicas else found.sizes.gradients
        rows = {}
        for name, more in (("rows", 0), ("rows_ddp", buckets)):
            fits = step + more <= usable
            if fits and not search:
                rows[name] = -2 if found.highest.total + more <= usable else -1
                continue
            largest = largest_budget(trained, ROWS * length, length, usable - more) if fits else None
            rows[name] = 0 if largest is None else largest.rows
    lasting = sum(size for label, size in batch.parts.items() if label in LASTING)
    return {
        "lasting": lasting, "activations": batch.parts[ACTIVATIONS], "highest": found.highest.total,
        "buckets": buckets, "flops": batch.flops / batch.rows, **rows, "seconds": time.process_time() - started,
    }  # fmt: skip


def lines(size: str, name: str, way: Way, found: dict[str, float]) -> Iterator[str]:
    """Returns the table's lines of a size and a way to train it, one for each number of GPUs."""
    alone: tuple[int, ...] = (way.ranks,) if way.replicas else (1,)
    many: tuple[int, ...] = () if way.replicas else (8, 16)
    for gpus, more, rows in [(alone, 0, "rows"), (many, found["buckets"], "rows_ddp")]:
        if not gpus:
            continue
        highest = found["highest"] + more
        largest = {0: "does not fit", -1: f"fewer than {ROWS}", -2: f"{ROWS} or more"}.get(
            int(found[rows]), f"{found[rows]:.0f}"
        )
        hours = [Machine().seconds(found["flops"]) * EXAMPLES / 3600 / count for count in gpus]
        cells = [
            size, name.split(", FSDP2")[0], ("FSDP2 on " if way.replicas else "ddp on " if many is gpus else "")
            + ", ".join(map(str, gpus)), f"{found['lasting'] / GIB:.1f}", f"{highest / GIB:.1f}", largest,
            "yes" if highest <= (Machine(memory=LARGE).usable or 0) else "no", ", ".join(f"{h:.2g}" for h in hours),
        ]  # fmt: skip
        yield f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--cache", type=Path, default=Path("outputs/scale.json"), help="what has been planned before")
    parser.add_argument("--no-search", action="store_true", help=f"no search for the largest batch: {ROWS} rows or not")
    parser.add_argument("--shapes", type=Path, help="only write the models' configurations into this folder")
    arguments = parser.parse_args()
    if arguments.shapes is not None:
        write_shapes(arguments.shapes, arguments.sizes)
        return
    arguments.cache.parent.mkdir(parents=True, exist_ok=True)
    known = json.loads(arguments.cache.read_text()) if arguments.cache.exists() else {}
    for size in arguments.sizes:
        for name in arguments.ways:
            key = f"{size}, {name}"
            if key not in known:
                known[key] = figures(size, WAYS[name], not arguments.no_search)
                arguments.cache.write_text(json.dumps(known, indent=2))
            print("\n".join(lines(size, name, WAYS[name], known[key])), flush=True)


if __name__ == "__main__":
    main()
