"""``textkeep speak``: turns text questions into a manifest with spoken clips."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ..foundation.errors import UserError
from ..foundation.files import write_json_lines
from ..foundation.outputs import check_output
from ..preparation.speech.clips import ENCODINGS
from ..preparation.speech.engine import parse_voices
from ..preparation.speech.heldout import heldout_ids, require_unseen
from ..preparation.speech.own_output import check_inputs, check_own, read_own
from ..preparation.speech.plan import Cast
from ..preparation.speech.rows import REJECTED_LINES, Questions, Row, read_questions
from ..preparation.speech.speaking import Options, speak_rows, summary
from .command_parser import CommandParser
from .options import add_overwrite_option, not_negative, positive


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser("textkeep speak", description=__doc__)
    add = parser.add_argument
    add(
        "questions",
        type=Path,
        nargs="+",
        help="text manifests: JSON lines with id, question, answers and, optionally, split",
    )
    add("output", type=Path, help="folder: one manifest of the same name for each input, clips/, rejected.jsonl")
    add(
        "--voices",
        type=_names,
        default=["flite:kal16", "flite:rms", "flite:slt"],
        help="engine:name,... (default: flite:kal16,flite:rms,flite:slt)",
    )
    add(
        "--heldout-voices",
        type=_names,
        default=[],
        help="voices of the lines for validation and test only: told by a line's split (train, "
        "validation, test) or its file's name (val.jsonl)",
    )
    add(
        "--heldout-files",
        type=_names,
        default=[],
        help="inputs that are for validation and test, whatever their lines and names say; all others are for training",
    )
    add("--format", choices=sorted(ENCODINGS), default="ogg", help="16 kHz mono Opus, FLAC or WAV (default: ogg)")
    add("--jitter", type=float, default=0.0, help="vary speed and pitch by up to this fraction (default: 0)")
    add("--workers", type=positive, default=os.cpu_count() or 1, help="processes (default: all cores)")
    add(
        "--verify",
        metavar="WHISPER",
        help="transcribe each clip with this Whisper: asset:whisper-base, a folder or a hub id",
    )
    add("--max-wer", type=float, help="clips with a higher word error rate go to rejected.jsonl (needs --verify)")
    add(
        "--retry", type=not_negative, default=0, help="number of other voices that may try a rejected line (default: 0)"
    )
    add_overwrite_option(parser)
    return parser


@contextmanager
def _progress(title: str, total: int) -> Iterator[Callable[[int], None]]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        task = progress.add_task(title, total=total)
        yield lambda count: progress.update(task, advance=count)


def _cast(manifests: Sequence[Questions], cast: Cast, files: Sequence[str], folder: Path) -> Cast:
    """Returns the speakers and the held-out lines; warns if there are held-out voices but no such lines.

    Raises:
        ValueError: If a line's purpose is unclear, or a voice has already been used on the other side.
    """
    if not cast.heldout:
        if files:
            raise ValueError("speak: --heldout-files needs --heldout-voices")
        return cast
    cast = replace(cast, heldout_ids=heldout_ids(manifests, files))
    if not cast.heldout_ids:
        names = ", ".join(found.name for found in manifests)
        warning = f"no line of {names} is for validation or test: --heldout-voices speak nothing (see --heldout-files)"
        print(f"speak: warning: {warning}", file=sys.stderr)
    require_unseen(folder, cast, manifests)
    return cast


def main(argv: list[str]) -> int:
    """Runs the command.

    Args:
        argv: Arguments after ``speak``.

    Returns:
        0 when the manifests are written.

    Raises:
        ValueError: If the arguments or a manifest are unusable.
    """
    arguments = _parser().parse_intermixed_args(argv)
    if arguments.max_wer is not None and not arguments.verify:
        raise ValueError("speak: --max-wer needs --verify, for example --verify asset:whisper-base")
    if arguments.retry and arguments.max_wer is None:
        raise ValueError("speak: --retry needs --max-wer")
    cast = Cast(parse_voices(arguments.voices), parse_voices(arguments.heldout_voices), arguments.jitter)
    manifests = read_questions(arguments.questions)
    if nothing := next((found.path for found in manifests if not found.rows), None):
        raise UserError(f"speak: {nothing}: no question; allowed: JSON lines with id, question, answers")
    folder: Path = arguments.output
    check_output("speak:", folder, overwrite=True, folder=True)  # it continues its own output
    check_inputs(folder, arguments.questions)
    cast = _cast(manifests, cast, arguments.heldout_files, folder)
    if not arguments.overwrite:
        check_own(folder, {found.name: found.rows for found in manifests}, cast, arguments.format)
    options = Options(cast, arguments.format, arguments.workers, arguments.verify, arguments.max_wer, arguments.retry)
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    accepted, rejected = speak_rows([row for found in manifests for row in found.rows], folder, options, _progress)
    _write(folder, manifests, cast, accepted)
    if options.max_wer is not None:
        _write_rejected(folder, manifests, rejected)
    print("\n".join(summary(list(accepted.values()))))
    return 0


def _write(folder: Path, manifests: Sequence[Questions], cast: Cast, accepted: Mapping[str, Row]) -> None:
    """Writes a manifest for each input and reports its contents."""
    for found in manifests:
        spoken = [accepted[str(row["id"])] for row in found.rows if str(row["id"]) in accepted]
        write_json_lines(spoken, folder / found.name)
        unseen = sum(str(row["id"]) in cast.heldout_ids for row in spoken)
        told = f", {unseen} by held-out voices" if cast.heldout else ""
        print(f"{folder / found.name}: {len(spoken)} of {len(found.rows)} questions{told}")


def _write_rejected(folder: Path, manifests: Sequence[Questions], rejected: Mapping[str, Row]) -> None:
    """Writes the rejected lines, keeping those that earlier calls rejected from other questions."""
    asked = {str(row["id"]) for found in manifests for row in found.rows}
    others = [row for row in read_own(folder / REJECTED_LINES) if str(row.get("id")) not in asked]
    write_json_lines([*others, *rejected.values()], folder / REJECTED_LINES)
