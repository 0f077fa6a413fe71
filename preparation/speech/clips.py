"""Making clips: synthesis, 16 kHz, loudness, encoding, in one process or many."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from math import gcd
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from ...foundation.files import replacing
from .engine import SpeechEngine, make_engine
from .plan import Job
from .waveform import Waveform

SAMPLING_RATE = 16000
PEAK = 0.7
ENCODINGS = {"ogg": ("OGG", "OPUS"), "flac": ("FLAC", "PCM_16"), "wav": ("WAV", "PCM_16")}
OPUS_COMPRESSION = 0.965
"""libsndfile's 0 to 1, from 256 to 6 kbit/s a channel: 0.965 is 15 kbit/s, wideband speech."""

REJECTED = "rejected"
"""Folder beside the clips for takes that were too bad."""

CHUNK = 32
"""Clips handed to a process at a time."""

_engines: dict[str, SpeechEngine] = {}


def to_mono_16k(waveform: Waveform, sampling_rate: int) -> Waveform:
    """Resamples to 16 kHz by a polyphase filter and brings the peak to 0.7."""
    if sampling_rate != SAMPLING_RATE:
        from scipy.signal import resample_poly

        common = gcd(sampling_rate, SAMPLING_RATE)
        waveform = resample_poly(waveform, SAMPLING_RATE // common, sampling_rate // common)
    peak = float(np.abs(waveform).max())
    return np.asarray(waveform * (PEAK / max(peak, 1e-6)), dtype=np.float32)


def make_clip(job: Job, folder: Path) -> None:
    """Synthesises one clip, unless it is there.

    Args:
        job: What to make; the suffix of its path decides the encoding.
        folder: Output folder.

    Raises:
        ValueError: If the engine makes no sound of the text; the message names the line's id.
    """
    path = folder / job.clip
    if path.exists():
        return
    if job.voice.engine not in _engines:
        _engines[job.voice.engine] = make_engine(job.voice.engine)
    try:
        raw = _engines[job.voice.engine].synthesize(job.text, job.voice.name, rate=job.rate, pitch=job.pitch)
    except ValueError as error:
        raise ValueError(f"speak: {job.id}: {error}") from None
    write_clip(path, to_mono_16k(*raw))


def write_clip(path: Path, waveform: Waveform) -> None:
    """Encodes a 16 kHz waveform under a temporary name, then renames it."""
    import soundfile

    container, subtype = ENCODINGS[path.suffix[1:]]
    options = {"compression_level": OPUS_COMPRESSION} if subtype == "OPUS" else {}
    with replacing(path) as temporary:
        soundfile.write(temporary, waveform, SAMPLING_RATE, format=container, subtype=subtype, **options)


def recall_losers(folder: Path, jobs: Sequence[Job]) -> None:
    """Restores what an earlier run had set aside, so that it is not spoken again."""
    for job in jobs:
        aside = folder / REJECTED / Path(job.clip).name
        if aside.exists():
            aside.replace(folder / job.clip)


def set_aside(folder: Path, clips: Iterable[str]) -> None:
    """Moves clips that no manifest holds out of the clips' folder."""
    for clip in clips:
        if (folder / clip).exists():
            (folder / REJECTED).mkdir(exist_ok=True)
            (folder / clip).replace(folder / REJECTED / Path(clip).name)


def make_chunk(jobs: Sequence[Job], folder: Path) -> int:
    """Makes several clips (in a worker process) and counts them."""
    for job in jobs:
        make_clip(job, folder)
    return len(jobs)


def make_clips(jobs: Sequence[Job], folder: Path, workers: int, advance: Callable[[int], None]) -> int:
    """Makes all clips that are not there yet.

    Args:
        jobs: What to make.
        folder: Output folder.
        workers: Number of processes; 1 works in this one.
        advance: Called with the number of clips that were finished.

    Returns:
        How many were made now.

    Raises:
        ValueError: If an engine fails on a text, or a worker process dies.
    """
    recall_losers(folder, jobs)
    present = {entry.name for entry in os.scandir(folder / "clips")}
    missing = [job for job in jobs if Path(job.clip).name not in present]
    advance(len(jobs) - len(missing))
    for count in _run(missing, folder, workers):
        advance(count)
    return len(missing)


def _run(jobs: Sequence[Job], folder: Path, workers: int) -> Iterator[int]:
    if workers == 1:
        for job in jobs:
            make_clip(job, folder)
            yield 1
        return
    chunks = [jobs[start : start + CHUNK] for start in range(0, len(jobs), CHUNK)]
    # Spawned processes start clean: no locks of this one's threads are copied into them.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(make_chunk, chunk, folder) for chunk in chunks]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool:
            raise ValueError("speak: a worker process died (out of memory?); run again, finished clips stay") from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
