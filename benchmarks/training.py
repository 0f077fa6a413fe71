"""What a training step costs compared with a bare torch loop and Hugging Face's Trainer, on the same batches.

    python -m benchmarks.training                  # a random model of 40,000 weights: what Python costs
    python -m benchmarks.training --model small    # 21 million: what passes over the weights cost, too
    python -m benchmarks.training --model asset:smollm2-135m-instruct --rounds 20    # needs `textkeep assets`, 8 GiB

CPU time (``time.process_time``, one thread) of whole steps: from the end of one optimizer step to the end of the next.
The three loops run side by side in one process and take turns, one step each on the same batch, in an order that
changes from round to round; a ratio is taken within its round, so that a busy machine disturbs all alike. Figures are
medians over the rounds, with 95 % intervals from the ranks (exact, whatever the distribution). Speech and text are
measured separately: with speech, the frozen encoder is part of a step.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import sys
import tempfile
import threading
import time
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import comb
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
if importlib.util.find_spec("textkeep") is None:  # a checkout that is not installed
    package = types.ModuleType("textkeep")
    package.__path__ = [str(ROOT)]
    sys.modules["textkeep"] = package
sys.path.insert(0, str(ROOT))

from benchmarks.tiny_models import write_tiny_llm, write_tiny_whisper  # noqa: E402
from benchmarks.training_loops import LOOPS, Loop  # noqa: E402
from textkeep.datamodules import Batch, SpeechTextData  # noqa: E402
from textkeep.foundation.quiet import quieten  # noqa: E402
from textkeep.lightning_modules import ConcatMLP, SpeechLLM, WhisperEncoder  # noqa: E402

MODALITIES = ("speech", "text")
RANDOM: dict[str, dict[str, int]] = {
    "tiny": {},
    "small": {
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 6,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
    },
}
"""Random models by name: what differs from the tiny one. ``small`` is a fifth of SmolLM2-135M's layers."""


class Turns:
    """One loop in its own thread, which trains when it is its turn.

    Args:
        work: Trains, and calls its argument after each step.
    """

    def __init__(self, work: Callable[[Callable[[], None]], None]) -> None:
        self._go, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        self._thread.start()

    def _run(self, work: Callable[[Callable[[], None]], None]) -> None:
        self._go.acquire()
        try:
            torch.set_num_threads(1)  # a per-thread setting under OpenMP
            work(self._stepped)
        except BaseException as error:
            self._error = error
        self._done.release()

    def _stepped(self) -> None:
        self._done.release()
        self._go.acquire()

    def take(self) -> float:
        """Lets it train to the end of its next optimizer step, or to its end, and returns the CPU seconds."""
        began = time.process_time()
        self._go.release()
        self._done.acquire()
        if self._error is not None:
            raise self._error
        return time.process_time() - began


@dataclass
class Sample:
    """CPU seconds of the steps of each loop, by name, one per round.

    Attributes:
        seconds: Loop -> seconds, with rounds in the same order.
        losses: Loop -> loss of the model on the last batch after training (nats): alike, if they did the same.
    """

    seconds: dict[str, list[float]] = field(default_factory=dict)
    losses: dict[str, float] = field(default_factory=dict)

    def ratio(self, name: str, to: str) -> tuple[float, float, float]:
        """Returns the median of the paired ratios, and its interval."""
        pairs = zip(self.seconds[name], self.seconds[to], strict=True)
        return median_interval([one / other for one, other in pairs])


def median_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float, float]:
    """Returns the median and the ranks' interval for it (binomial, at least of this level where there are enough)."""
    ordered, count = sorted(values), len(values)
    below, rank = 0.0, 0
    while rank < count // 2 and (below := below + comb(count, rank) / 2**count) <= (1 - level) / 2:
        rank += 1
    lowest = max(rank - 1, 0)
    return statistics.median(ordered), ordered[lowest], ordered[count - 1 - lowest]


def measure(make: Callable[[], SpeechLLM], batches: Sequence[Batch], loops: dict[str, Loop], warmup: int) -> Sample:
    """Trains with all loops in turn.

    Args:
        make: Builds the model, identically each time.
        batches: One per round; the first ones are for warm-up.
        loops: By name.
        warmup: Rounds that are not counted.
    """
    models = {name: make() for name in loops}
    turns = {name: Turns(partial(loop, models[name], batches)) for name, loop in loops.items()}
    sample, names = Sample({name: [] for name in loops}), list(loops)
    for number in range(len(batches)):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            seconds = turns[name].take()
            if number >= warmup:
                sample.seconds[name].append(seconds)
    for name, model in models.items():
        turns[name].take()  # run to the end
        with torch.no_grad():
            losses, tokens = model.eval().answer_losses(batches[-1])
        sample.losses[name] = float(losses.sum() / tokens.sum())
    return sample


def the_model(options: argparse.Namespace, folder: Path) -> Callable[[], SpeechLLM]:
    """Returns a function that builds the model, random or real, with its weights."""
    llm, encoder = options.model, options.encoder
    if llm in RANDOM:
        llm = str(write_tiny_llm(folder / "llm", **RANDOM[options.model]))
        encoder = str(write_tiny_whisper(folder / "whisper"))

    def make() -> SpeechLLM:
        torch.manual_seed(0)
        optimizer = partial(torch.optim.AdamW, lr=options.lr, weight_decay=0.0, fused=options.fused)
        model = SpeechLLM(llm, WhisperEncoder(encoder), ConcatMLP(), optimizer=optimizer, lr_schedule="constant")
        model.configure_model()
        return model

    return make


def the_batches(model: SpeechLLM, modality: Any, tokens: int, count: int) -> list[Batch]:
    """Returns batches of the embedded questions, as a run makes them."""
    data = SpeechTextData("spoken-facts/train", train_modalities=modality, tokens_per_batch=tokens)
    data.connect(model.front_end)
    data.setup("fit")
    return [batch for _, batch in zip(range(count), data.train_dataloader(), strict=False)]


def rows(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Measures, and returns a row per loop and modality."""
    with tempfile.TemporaryDirectory() as folder:
        make = the_model(options, Path(folder))
        for modality in options.modalities:
            batches = the_batches(make(), modality, options.tokens, options.rounds + options.warmup)
            sample = measure(make, batches, LOOPS, options.warmup)
            first = next(iter(LOOPS))
            for name, seconds in sample.seconds.items():
                found = {"modality": modality, "loop": name, "rounds": len(seconds), "loss": sample.losses[name]}
                found |= {"seconds": statistics.median(seconds), "ratio": sample.ratio(name, first)}
                yield {**found, "to_hugging_face": sample.ratio(name, "Hugging Face Trainer")}


def arguments() -> argparse.ArgumentParser:
    """Returns the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny", help="tiny, small, or an LLM: hub id, folder, asset")
    parser.add_argument("--encoder", default="asset:whisper-tiny.en", help="of a real LLM")
    parser.add_argument("--modalities", nargs="+", default=MODALITIES, choices=MODALITIES)
    parser.add_argument("--tokens", type=int, default=384, help="positions of a batch; the quickstart's")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--lr", type=float, default=1e-5)
    parser.add_argument("--fused", action="store_true", help="AdamW in one pass over the weights, in all loops")
    parser.add_argument("--json", action="store_true", help="a row a line")
    return parser


def main() -> None:
    """Prints a row per loop and modality."""
    options = arguments().parse_args()
    torch.set_num_threads(1)
    quieten()
    if not options.json:
        print(f"{'':8}{'loop':22}{'CPU s':>9}  {'x bare loop':24}{'x Hugging Face':24}{'loss after':>11}")
    for row in rows(options):
        if options.json:
            print(json.dumps(row), flush=True)
            continue
        shown = ["{:.3f} [{:.3f}, {:.3f}]".format(*row[key]) for key in ("ratio", "to_hugging_face")]
        print(
            f"{row['modality']:8}{row['loop']:22}{row['seconds']:9.4f}  {shown[0]:24}{shown[1]:24}{row['loss']:11.6f}"
        )


if __name__ == "__main__":
    main()
