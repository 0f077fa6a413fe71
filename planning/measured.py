"""Three real steps, measured, to compare with a plan."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..datamodules import SpeechTextData
from ..lightning_modules import SpeechLLM
from .meter import Meter
from .question import Batches, Question
from .stepping import Stepping, TrainerSettings
from .teachers import stand_beside

STEPS = 3


@dataclass(frozen=True)
class Measured:
    """What three steps took.

    Attributes:
        device: Where they ran.
        peak: Bytes: the most that CUDA's allocator held, or on a CPU what the process grew by.
        how: Which of the two.
        seconds: Of a step: the median of those after the first.
        rows: Rows of a batch.
        positions: Rows times the longest row.
    """

    device: str
    peak: int
    how: str
    seconds: float
    rows: int
    positions: int


def measure_steps(model: SpeechLLM, data: SpeechTextData, settings: TrainerSettings, question: Question) -> Measured:
    """Loads the weights and takes three optimizer steps on full batches of the first kind.

    Args:
        model: As its config describes it.
        data: The same; no source is read.
        settings: Of the Trainer.
        question: What all rows are.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    before = _resident()
    with settings.weights():
        model.configure_model()
    model.to(device, settings.dtype)
    front_end: Any = model.front_end
    data.connect(front_end)
    batches = Batches(data, question)
    batch = batches.training(batches.kinds()[0]).to(device)
    stepping = Stepping(model, settings)
    stand_beside(model, Meter())
    times = []
    for _ in range(STEPS):
        started = time.perf_counter()
        for _ in range(settings.accumulate):
            stepping.batch(batch)
        stepping.step()
        stepping.forget()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else _highest() - before
    how = "most bytes that CUDA's allocator held" if device == "cuda" else "growth of the process (resident memory)"
    seconds = statistics.median(times[1:])
    return Measured(device, peak, how, seconds, len(batch), batch.input_ids.numel())


def _highest() -> int:
    """Returns the peak of the process's resident memory, in bytes."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def _resident() -> int:
    """Returns the process's resident memory in bytes, or its peak where the system reports only that."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * resource.getpagesize() if statm.exists() else _highest()
