"""``textkeep rewrite MANIFEST -o NEW.jsonl --llm LLM``: writes targets in the untouched LLM's own words.

The LLM reads each question as text and answers it greedily; the answer becomes the target of the question in the new
manifest (DeSTA2, arXiv 2409.20007; AZeroS, arXiv 2601.06086). Training on it does not pull the LLM away from what it
would have said anyway. Accepted answers stay as they are, for scoring; so do clips and all other keys. An interrupted
command continues where it stopped.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..foundation.errors import UserError
from ..foundation.files import write_json_lines
from ..foundation.outputs import check_output
from .command_parser import CommandParser
from .errors import speaking_as
from .options import add_model_options, add_overwrite_option, positive
from .output import progress_bars

if TYPE_CHECKING:
    from ..datamodules import Example
    from ..inference import LoadedModel
    from ..preparation.rewriting.part_file import Answer, PartFile

KEEP = ("all", "correct")


def main(argv: list[str]) -> int:
    """Runs the command.

    Args:
        argv: The words after ``textkeep rewrite``.

    Returns:
        The exit code.
    """
    arguments = _parser().parse_args(argv)
    output: Path = arguments.output
    if output.suffix != ".jsonl":
        raise UserError(f"rewrite: -o {output} is not a .jsonl file; allowed: a new .jsonl file")
    check_output("rewrite: -o", output, arguments.overwrite)
    if output.exists() and Path(arguments.manifest).exists() and output.samefile(arguments.manifest):
        raise UserError(f"rewrite: -o {output} is the input manifest; allowed: another .jsonl file")
    from ..preparation.rewriting.manifest import Rewriting, copy_clips, find_clips, read_questions
    from ..preparation.rewriting.part_file import PartFile

    examples, unwritten = read_questions(arguments.manifest, arguments.limit)
    if unwritten and arguments.limit is None:
        total = len(examples) + unwritten
        print(f"{unwritten} of {total} examples have no written question and are left out")
    clips = find_clips(examples, output, arguments.copy_clips)
    output.parent.mkdir(parents=True, exist_ok=True)
    with PartFile(output.with_name(f"{output.name}.part"), _settings(arguments)) as part:
        remaining = [example for example in examples if part.answer(example.id, example.question) is None]
        if len(remaining) < len(examples):
            print(f"{part.path}: {len(examples) - len(remaining)} answers exist already", flush=True)
        if remaining:
            _answer(remaining, arguments, part)
    rewriting = Rewriting(arguments.llm, arguments.keep, arguments.max_new_tokens, clips)
    kept = rewriting.rows(examples, part.answers)
    if not kept:
        raise UserError(f"rewrite: no answer was kept ({rewriting.told()}); they are in {part.path}")
    copy_clips(clips, output.parent, {row["id"] for row in kept})
    write_json_lines(kept, output)
    part.path.unlink()
    print(f"{output}: {len(kept)} of {len(examples)} questions ({rewriting.told()})")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        "textkeep rewrite",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("manifest", metavar="MANIFEST", help="a JSONL manifest, or spoken-facts/SPLIT")
    add("-o", "--output", type=Path, required=True, help="the new manifest; clips must be in its folder or below")
    add("--llm", required=True, help="the LLM to be trained: hub id, folder or asset:NAME")
    add(
        "--keep",
        choices=KEEP,
        default="all",
        help="which answers to keep; correct: those that contain an accepted answer (default: all)",
    )
    add("--copy-clips", action="store_true", help="copy clips beside the new manifest if they are elsewhere")
    add(
        "--max-new-tokens",
        type=positive,
        default=128,
        help="length limit; answers that do not end within it are left out (default: 128)",
    )
    add("--batch-size", type=positive, default=16, help="questions per batch (default: 16)")
    add("--limit", type=positive, help="rewrite only the first LIMIT questions")
    add("--system", help="system prompt, if training uses one (data.system)")
    add("--text-instruction", default="", help="text after each question, if training uses one")
    add(
        "--template-options",
        type=_json_object,
        metavar="JSON",
        help="more variables of the chat template, if training uses some: '{\"enable_thinking\": false}'",
    )
    add_overwrite_option(parser)
    add_model_options(parser)
    return parser


def _json_object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise argparse.ArgumentTypeError(f'{text!r} is not a JSON object; allowed: e.g. {{"enable_thinking": false}}')
    return found


def _settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns what an answer depends on."""
    names = ("manifest", "llm", "max_new_tokens", "system", "text_instruction", "template_options", "dtype")
    return {name: getattr(arguments, name) for name in names}


def _answer(examples: Sequence[Example], arguments: argparse.Namespace, part: PartFile) -> None:
    """Has the LLM answer, in batches of similar length."""
    from ..inference import load

    with speaking_as("rewrite"):
        model = load(arguments.llm, arguments.device, arguments.dtype)
    ordered = sorted(examples, key=lambda example: len(example.question))
    size = arguments.batch_size
    batches = [ordered[i : i + size] for i in range(0, len(ordered), size)]
    with progress_bars() as report:
        for done, batch in enumerate(batches):
            report("answering", done, len(batches))
            part.add(_answers(batch, model, arguments))


def _answers(examples: Sequence[Example], model: LoadedModel, arguments: argparse.Namespace) -> Iterator[Answer]:
    from ..preparation.rewriting.part_file import Answer

    prompts = {key: getattr(arguments, key) for key in ("text_instruction", "system", "template_options")}
    (written,) = model.write(examples, "text", arguments.max_new_tokens, len(examples), prompts)
    for example, text, ended in zip(examples, written.texts, written.ended, strict=True):
        yield Answer(example.id, example.question, text, ended)
