"""Does `textkeep plan` predict the memory of a run? Planned peaks against those of real fits with random weights.

    python -m benchmarks.plan 135m full
    python -m benchmarks.plan 1b lora --layers 4 --precision bf16-true
    python -m benchmarks.plan 135m full --layers 8 --ranks 2

Each case is a Lightning fit of two steps on a CPU in a process of its own, or in as many as there are ranks of FSDP2
(gloo); the first rank is looked at. Its peak since training began is that of
torch's own allocator, as torch.profiler reports every allocation, the memory inside of kernels included. The growth of
the process (resident memory) stands beside it: it also holds the libraries' code and what malloc keeps. It takes two
small assets (`textkeep assets smollm2-135m-instruct whisper-tiny.en`).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import resource
import socket
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.profiler import ProfilerActivity, profile, record_function
from transformers import AutoTokenizer, LlamaConfig

from textkeep.datamodules import SpeechTextData
from textkeep.datamodules.sources.bad_examples import BadExamples
from textkeep.datamodules.sources.example import Example
from textkeep.datamodules.sources.source import Source
from textkeep.foundation.assets import resolve
from textkeep.lightning_modules import FSDP2, FullFineTuning, LoRA, SpeechLLM
from textkeep.lightning_modules.ears.adaptors import ConcatMLP
from textkeep.lightning_modules.ears.encoders import WhisperEncoder
from textkeep.lightning_modules.llm.pretrained import shapes_only
from textkeep.planning import Question, TrainerSettings
from textkeep.planning.pretended_ranks import pretended_ranks
from textkeep.planning.rehearsal import Rehearsal

SHAPES: dict[str, dict[str, Any]] = {
    "135m": {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
             "num_key_value_heads": 3, "vocab_size": 49152},
    "360m": {"hidden_size": 960, "intermediate_size": 2560, "num_hidden_layers": 32, "num_attention_heads": 15,
             "num_key_value_heads": 5, "vocab_size": 49152},
    "1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
           "num_key_value_heads": 8, "vocab_size": 128256},
}  # fmt: skip
TUNINGS = {"full": FullFineTuning, "lora": LoRA}
STEPS = 2
BEGIN = "training begins"
GIB = 2**30


@dataclass(frozen=True)
class Case:
    """A case to plan and run."""

    shape: str
    tuning: str
    layers: int | None
    precision: str
    tokens: int
    checkpointing: bool
    ranks: int

    def model(self, folder: Path) -> SpeechLLM:
        """Describes the model; its folder has no weights."""
        tokenizer = AutoTokenizer.from_pretrained(resolve("asset:smollm2-135m-instruct"))
        tokenizer.save_pretrained(folder)
        layers = {"num_hidden_layers": self.layers} if self.layers else {}
        LlamaConfig(**{**SHAPES[self.shape], **layers}, tie_word_embeddings=True).save_pretrained(folder)
        encoder, adaptor = WhisperEncoder("asset:whisper-tiny.en"), ConcatMLP(stack=5)
        return SpeechLLM(
            str(folder), encoder, adaptor, TUNINGS[self.tuning](), gradient_checkpointing=self.checkpointing
        )

    def data(self) -> SpeechTextData:
        """Returns rows like those of the plan."""
        return SpeechTextData(train=Rows(), tokens_per_batch=self.tokens)


class Rows(Source):
    """Enough of a plan's rows for two full batches."""

    name = "rows"

    def read(self, bad: BadExamples, answers_required: bool = True) -> list[Example]:
        """Returns the rows."""
        return Question().examples(64)


class Begin(Callback):
    """Marks where training begins, after random weights were drawn with an output head that was then tied and freed."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sets the mark."""
        with record_function(BEGIN):
            pass


def planned(case: Case, folder: Path, environment: dict[str, str]) -> int:
    """Returns the bytes that the plan tells of a training step."""
    settings = TrainerSettings(case.precision, 1, None, gpu=False, replicas=1 if case.ranks > 1 else None)
    with pretended_ranks(case.ranks, settings.replicas):
        found = Rehearsal(case.model(folder), case.data(), [], settings, Question(), case.ranks).steps()
    return max(moment.total for moment in found.moments[:2])


def measured(case: Case, folder: Path, environment: dict[str, str]) -> dict[str, float]:
    """Runs the fit as one rank and gives its peaks in bytes and its seconds."""
    os.environ |= environment
    strategy: dict[str, Any] = {"strategy": FSDP2()} if case.ranks > 1 else {}
    before, started = resident(), time.perf_counter()
    trainer = Trainer(
        accelerator="cpu", devices=case.ranks, max_steps=STEPS, precision=case.precision, logger=False,  # type: ignore[arg-type]
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
        use_distributed_sampler=False, limit_val_batches=0, callbacks=[Begin()], **strategy,
    )  # fmt: skip
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler, shapes_only():
        trainer.fit(case.model(folder), datamodule=case.data())
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    seconds = time.perf_counter() - started
    return {"allocated": peak_of(profiler), "resident": highest - before, "seconds": seconds}


def peak_of(profiler: profile) -> int:
    """Adds up every allocation and release in order; returns the highest sum since training began."""
    events = profiler.profiler.kineto_results.events()  # type: ignore[union-attr]
    (begin,) = {event.start_ns() for event in events if event.name() == BEGIN}
    changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    live = peak = 0
    for moment, change in changes:
        live += change
        peak = max(peak, live) if moment > begin else live
    return peak


def resident() -> int:
    """Returns the resident memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def in_children(work: Any, case: Case, *environments: dict[str, str]) -> list[Any]:
    """Runs a function in processes of its own, one for each environment."""
    with tempfile.TemporaryDirectory() as folder, multiprocessing.get_context("spawn").Pool(len(environments)) as pool:
        folders = [Path(folder) / str(number) for number in range(len(environments))]
        return pool.starmap(work, [(case, *own) for own in zip(folders, environments, strict=True)], chunksize=1)


def environments(ranks: int) -> list[dict[str, str]]:
    """Returns what Lightning reads of each rank; nothing for one."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(ranks), "NODE_RANK": "0"}
    return [{**shared, "LOCAL_RANK": str(rank)} for rank in range(ranks)] if ranks > 1 else [{}]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("tuning", choices=TUNINGS)
    parser.add_argument("--layers", type=int, help="fewer decoder layers than the shape has")
    parser.add_argument("--precision", default="32-true", choices=["32-true", "bf16-mixed", "bf16-true"])
    parser.add_argument("--tokens", type=int, default=512, help="positions of a batch (default: 512)")
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--ranks", type=int, default=1, help="of FSDP2, which share the weights out (default: 1)")
    case = Case(**vars(parser.parse_args()))
    told = in_children(planned, case, {})[0]
    found = in_children(measured, case, *environments(case.ranks))[0]
    layers, ranks = f", {case.layers} layers" if case.layers else "", f", {case.ranks} ranks" if case.ranks > 1 else ""
    print(
        f"| {case.shape}{layers} | {case.tuning}{', checkpointed' if case.checkpointing else ''}{ranks} | "
        f"{case.precision} | {told / GIB:.3f} | {found['allocated'] / GIB:.3f} | "
        f"{told / found['allocated'] - 1:+.1%} | {found['resident'] / GIB:.2f} |"
    )
    machine = {"torch": torch.__version__, "python": platform.python_version(), "machine": platform.machine()}
    print(json.dumps({**vars(case), **machine, **found, "planned": told}))


if __name__ == "__main__":
    main()
