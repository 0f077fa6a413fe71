"""Speaks lines of manifests, checks them with Whisper, and sorts them into accepted and rejected."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from .clips import REJECTED, make_clips, set_aside
from .plan import Cast, Job, plan
from .rows import Row

Bar = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""``bar(title, total)``: a context that gives ``advance(count)``."""


@dataclass(frozen=True)
class Options:
    """How lines are spoken.

    Attributes:
        cast: The voices.
        suffix: Format of the clips.
        workers: Processes.
        verify: The Whisper that listens: an asset, a folder or a hub id; None for nobody.
        max_wer: Highest word error rate of an accepted clip.
        retry: Number of other voices that may try what was rejected.
    """

    cast: Cast
    suffix: str
    workers: int
    verify: str | None
    max_wer: float | None
    retry: int


def speak_rows(rows: Sequence[Row], folder: Path, options: Options, bar: Bar) -> tuple[dict[str, Row], dict[str, Row]]:
    """Speaks lines and checks them.

    Args:
        rows: Lines of all manifests.
        folder: Output folder.
        options: How.
        bar: Shows how far it is.

    Returns:
        Accepted and rejected lines by id, with audio, voice, seconds and, when verified, transcript and wer.
    """
    accepted: dict[str, Row] = {}
    rejected: dict[str, Row] = {}
    takes: list[str] = []
    waiting = list(rows)
    for attempt in range(options.retry + 1):
        jobs = [plan(row, options.cast, options.suffix, attempt) for row in waiting]
        with bar("speaking" if attempt == 0 else f"retry {attempt}", len(jobs)) as advance:
            make_clips(jobs, folder, options.workers, advance)
        takes += [job.clip for job in jobs]
        heard = listen(jobs, folder, options.verify, bar) if options.verify else {}
        for row, job in zip(waiting, jobs, strict=True):
            done = _spoken_row(row, job, folder) | _checked(heard.get(job.id))
            if options.max_wer is None or done["wer"] <= options.max_wer:
                accepted[job.id] = done
                rejected.pop(job.id, None)
            elif job.id not in rejected or done["wer"] < rejected[job.id]["wer"]:
                rejected[job.id] = done
        waiting = [row for row in waiting if str(row["id"]) in rejected]
        if not waiting:
            break
    kept = {row["audio"] for row in accepted.values()}
    set_aside(folder, (take for take in takes if take not in kept))
    for row in rejected.values():
        row["audio"] = row["audio"].replace("clips", REJECTED, 1)
    return accepted, rejected


def listen(jobs: Sequence[Job], folder: Path, source: str, bar: Bar) -> dict[str, tuple[str, float]]:
    """Returns transcript and word error rate of every clip, by id."""
    from .verify import TranscriptStore, WordErrorRate, load_transcriber, transcribe_clips

    store, rate = TranscriptStore(folder / ".transcripts.jsonl"), WordErrorRate()
    if any(job.clip not in store.transcripts for job in jobs):
        with bar("listening", len(jobs)) as advance:
            transcribe_clips([job.clip for job in jobs], folder, load_transcriber(source), store, advance)
    heard = {job.id: store.transcripts[job.clip] for job in jobs}
    return {job.id: (heard[job.id], rate(job.text, heard[job.id])) for job in jobs}


def summary(rows: Sequence[Row]) -> list[str]:
    """Returns clips, minutes and mean word error rate of each voice, one line per voice."""
    by_voice: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_voice[row["voice"]].append(row)
    lines = []
    for voice, spoken in sorted(by_voice.items()):
        minutes = sum(row["seconds"] for row in spoken) / 60
        rates = [row["wer"] for row in spoken if "wer" in row]
        ear = f", WER {100 * sum(rates) / len(rates):.1f} %" if rates else ""
        lines.append(f"{voice:20s} {len(spoken):6d} clips {minutes:7.1f} min{ear}")
    return lines


def _spoken_row(row: Row, job: Job, folder: Path) -> Row:
    import soundfile

    info = soundfile.info(folder / job.clip)
    return row | {"audio": job.clip, "voice": str(job.voice), "seconds": round(info.frames / info.samplerate, 3)}


def _checked(heard: tuple[str, float] | None) -> Row:
    return {} if heard is None else {"transcript": heard[0], "wer": heard[1]}
