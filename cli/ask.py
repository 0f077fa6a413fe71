"""``textkeep ask RUN``: asks a trained model questions, spoken or written.

Without a question it starts a conversation: type questions or paths of sound files; the model is loaded once.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..foundation.errors import UserError
from ..foundation.json_lines import require_text
from .command_parser import CommandParser
from .conversation import Question, converse
from .errors import speaking_as
from .options import positive

if TYPE_CHECKING:
    from ..inference import LoadedModel

CHECK_RATE = 16000
"""Clips are decoded at this rate before the model is loaded, so that a bad one is reported at once."""


def main(argv: list[str]) -> int:
    """Answers the questions given, or those typed, one per line.

    Args:
        argv: The words after ``textkeep ask``.

    Returns:
        The exit code.
    """
    arguments = _parser().parse_args(argv)
    if not arguments.run.exists():
        allowed = "a run directory, a checkpoint or an export"
        raise UserError(f"ask: {arguments.run} does not exist; allowed: {allowed}")
    from ..inference import load
    from ..inference.run_settings import data_settings

    with speaking_as("ask"):
        longest = data_settings(arguments.run).get("max_seconds")
        for question in arguments.questions:
            _check(question, longest)
        model = load(arguments.run, arguments.device)

        def answer(question: Question) -> None:
            _check(question, longest)
            _answer(model, question, arguments)

        if not arguments.questions:
            return converse(answer)
    for question in arguments.questions:
        _answer(model, question, arguments)
    return 0


def _answer(model: LoadedModel, question: Question, arguments: argparse.Namespace) -> None:
    """Asks, and prints the answer."""
    started = time.perf_counter()
    asked: dict[str, Any] = {"audio" if question.modality == "speech" else "text": question.given}
    answer = model.ask(**asked, max_new_tokens=arguments.max_new_tokens)
    seconds = time.perf_counter() - started
    if arguments.json:
        key = "audio" if question.modality == "speech" else "question"
        line = {key: question.given, "modality": question.modality, "answer": answer, "seconds": round(seconds, 3)}
        print(json.dumps(line, ensure_ascii=False), flush=True)
    else:
        print(answer if len(arguments.questions) < 2 else f"{question.given}\n  {answer}", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(prog="textkeep ask", description=__doc__)
    known = "run directory, .ckpt file, export, or folder of an audio LLM"
    parser.add_argument("run", type=Path, metavar="RUN", help=known)
    asked: dict[str, Any] = {"dest": "questions", "action": "append", "default": []}
    parser.add_argument(
        "--audio",
        type=lambda path: Question("speech", path, "--audio"),
        metavar="FILE",
        help="a spoken question (wav, flac, ogg, mp3; any sample rate); may be repeated",
        **asked,
    )
    parser.add_argument(
        "--text",
        type=lambda text: Question("text", text, "--text"),
        metavar="QUESTION",
        help="a written question; may be repeated",
        **asked,
    )
    parser.add_argument(
        "--max-new-tokens", type=positive, help="maximum length of an answer (default: the model's own setting)"
    )
    parser.add_argument("--device", help="cpu, cuda, ... (default: a GPU if there is one)")
    parser.add_argument("--json", action="store_true", help="print one JSON object per question")
    return parser


def _check(question: Question, longest: float | None) -> None:
    """Refuses an empty text, and a clip that cannot be used."""
    from ..datamodules import Example
    from ..datamodules.sources.audio import MAX_SECONDS, read_waveform

    where = question.option or "the question"
    if question.modality == "text":
        if not question.given.strip():
            raise UserError(f"{where} is empty; allowed: a question")
        require_text(question.given, f"ask: {where}")  # a terminal with another encoding yields lone surrogates
        return
    if not Path(question.given).is_file():
        named = f"{question.option} {question.given}".strip()
        raise UserError(f"{named} does not exist or is not a file; allowed: a sound file")
    example = Example("audio", "", ("-",), "-", Path(question.given), location=question.option or question.given)
    read_waveform(example, CHECK_RATE, longest or MAX_SECONDS)
