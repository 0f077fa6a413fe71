"""``textkeep ask RUN``: asks a trained model questions, spoken or written."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..foundation.json_lines import require_text
from .errors import CommandError
from .listener import PROMPT_OPTIONS, load_listener, run_config
from .numbers import positive

CHECK_RATE = 16000
"""Clips are decoded once at this rate before the model is loaded: a bad one is told in a second, not in twenty."""


class Question(NamedTuple):
    """What is asked."""

    modality: str
    """``speech`` or ``text``."""
    given: str
    """Path of the clip, or the question."""


def main(argv: list[str]) -> int:
    """Answers each question on a line of its own.

    Args:
        argv: The words after ``textkeep ask``.

    Returns:
        The exit code.
    """
    arguments = _parser().parse_args(argv)
    if not arguments.questions:
        raise CommandError("ask: nothing was asked; give --audio FILE or --text QUESTION, each as often as you like")
    if not arguments.run.exists():
        allowed = "a run directory, a checkpoint or an export"
        raise CommandError(f"ask: {arguments.run} does not exist; allowed: {allowed}")
    config = run_config(arguments.run)
    examples = [_example(question, config) for question in arguments.questions]
    model = load_listener(arguments.run, arguments.device, "ask")
    for question, example in zip(arguments.questions, examples, strict=True):
        started = time.perf_counter()
        answer = answer_one(model, example, question.modality, config, arguments.max_new_tokens)
        seconds = time.perf_counter() - started
        if arguments.json:
            key = "audio" if question.modality == "speech" else "question"
            line = {key: question.given, "modality": question.modality, "answer": answer, "seconds": round(seconds, 3)}
            print(json.dumps(line, ensure_ascii=False), flush=True)
        else:
            print(answer if len(examples) == 1 else f"{question.given}\n  {answer}", flush=True)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="textkeep ask", description=__doc__, allow_abbrev=False)
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory, .ckpt file or export")
    asked: dict[str, Any] = {"dest": "questions", "action": "append", "default": []}
    parser.add_argument(
        "--audio",
        type=lambda path: Question("speech", path),
        metavar="FILE",
        help="a spoken question (wav, flac, ogg, mp3; any sample rate); may be repeated",
        **asked,
    )
    parser.add_argument(
        "--text",
        type=lambda text: Question("text", text),
        metavar="QUESTION",
        help="a written question; may be repeated",
        **asked,
    )
    parser.add_argument("--max-new-tokens", type=positive, help="longest answer (default: the model's own setting)")
    parser.add_argument("--device", help="cpu, cuda, ... (default: a GPU if there is one)")
    parser.add_argument("--json", action="store_true", help="one JSON object a question")
    return parser


def _example(question: Question, config: dict[str, Any]) -> Any:
    """The question as an example; a clip that cannot be used is refused here."""
    from ..datamodules import Example
    from ..datamodules.audio import MAX_SECONDS, read_waveform

    if question.modality == "text":
        if not question.given.strip():
            raise CommandError("ask: --text is empty; allowed: a question")
        require_text(question.given, "ask: --text")  # a terminal of another encoding gives halves of pairs
        return Example("text", question.given, ("-",), "-")
    example = Example("audio", "", ("-",), "-", Path(question.given), location="--audio")
    if not Path(question.given).is_file():
        raise CommandError(f"ask: --audio {question.given} does not exist or is no file; allowed: a sound file")
    read_waveform(example, CHECK_RATE, config.get("max_seconds") or MAX_SECONDS)
    return example


def answer_one(model: Any, example: Any, modality: str, config: dict[str, Any], max_new_tokens: int | None) -> str:
    """The greedy answer to one question.

    Args:
        model: A ``SpeechLLM``.
        example: The question.
        modality: ``speech`` or ``text``.
        config: Settings of the data module; prompts and limits are taken from it.
        max_new_tokens: Longest answer, or None.
    """
    import torch

    from ..datamodules import ChatPrompt, Collator, RowReader, View
    from ..datamodules.audio import MAX_SECONDS

    front_end = model.front_end
    chosen = {key: config[key] for key in PROMPT_OPTIONS if config.get(key) is not None}
    reader = RowReader(front_end, config.get("max_seconds") or MAX_SECONDS)
    collator = Collator(front_end, ChatPrompt(front_end.tokenizer, **chosen), answers=False)
    batch = collator([reader.read(View(example, modality))])
    with torch.inference_mode():
        answers: Sequence[str] = model.generate(batch.to(model.device), max_new_tokens=max_new_tokens)
    return answers[0]
