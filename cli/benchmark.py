"""``textkeep benchmark MODEL --tasks TASK…``: text benchmarks of lm-eval on a run's LLM, without an export."""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from pathlib import Path

from .errors import CommandError
from .importance.output import print_json, print_table, write_json
from .importance.subject import PRECISIONS, load_subject
from .numbers import not_negative, positive
from .replacing import add_overwrite_option, check_output

DEFAULT_TASKS = ("textkeep_general", "textkeep_general_sentences")


def main(argv: list[str]) -> int:
    """Scores a model and prints a table.

    Args:
        argv: The words after ``textkeep benchmark``.

    Returns:
        The exit code.
    """
    arguments = _parser().parse_args(argv)
    check_output("benchmark: -o", arguments.output, arguments.overwrite)
    import torch

    from ..datamodules import ChatPrompt
    from ..evaluation.text_benchmarks import run_benchmarks
    from ..lightning_modules.generation import greedily, stop_ids

    try:
        subject = load_subject(arguments.model, arguments.device, arguments.dtype)
    except CommandError as error:
        raise CommandError(str(error).replace("importance:", "benchmark:", 1)) from error
    tuning = getattr(subject.listener, "tuning", None)
    silent, tokenizer = torch.zeros(1, 1, dtype=torch.bool), subject.front_end.tokenizer
    end_id = ChatPrompt(tokenizer, **subject.prompts).end_id if tokenizer.chat_template else None
    greedy = greedily(subject.llm, tokenizer, stop_ids(subject.llm, tokenizer, end_id))
    with torch.no_grad(), greedy, nullcontext() if tuning is None else tuning.reading(silent):
        scores = run_benchmarks(
            subject.llm,
            tokenizer,
            arguments.tasks,
            arguments.limit,
            arguments.num_fewshot,
            arguments.batch_size,
            arguments.chat,
        )
    limits = scores.intervals()
    found = {key: {"value": value, "interval": list(limits[key])} for key, value in scores.values.items()}
    document = {"model": arguments.model, "limit": arguments.limit, "versions": scores.versions, "scores": found}
    if arguments.output is not None:
        write_json(document, arguments.output)
    if arguments.json:
        print_json(document)
        return 0
    rows = [
        (key, f"{value:.4g}", f"[{limits[key][0]:.3g}, {limits[key][1]:.3g}]") for key, value in scores.values.items()
    ]
    print_table(f"{arguments.model}, text benchmarks (lm-eval)", ("task and metric", "value", "95 % interval"), rows)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="textkeep benchmark", description=__doc__, allow_abbrev=False)
    parser.add_argument("model", metavar="MODEL", help="run directory, .ckpt file, hub id, folder or asset:NAME")
    parser.add_argument(
        "--tasks",
        nargs="+",
        default=list(DEFAULT_TASKS),
        metavar="TASK",
        help="of lm-eval, or YAML files (default: %(default)s)",
    )
    parser.add_argument("--limit", type=positive, help="most items a task")
    parser.add_argument(
        "--num-fewshot", type=not_negative, help="examples in the prompt (default: the task's own number)"
    )
    parser.add_argument("--batch-size", type=positive, default=8, help="sequences at once (default: 8)")
    parser.add_argument("--chat", action="store_true", help="put the prompts into the model's chat format")
    parser.add_argument("--device", help="cpu, cuda, ... (default: a GPU if there is one)")
    parser.add_argument("--dtype", choices=PRECISIONS, default="float32", help="type of the weights (default: float32)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("-o", "--output", type=Path, help="also write the JSON to a file")
    add_overwrite_option(parser)
    return parser
