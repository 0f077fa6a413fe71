"""``textkeep benchmark MODEL --tasks TASK…``: text benchmarks of lm-eval on a run's LLM, without exporting it."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..foundation.files import write_json
from ..foundation.outputs import check_output
from .command_parser import CommandParser
from .errors import speaking_as
from .options import add_model_options, add_overwrite_option, not_negative, positive
from .output import print_json, print_table

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
    from ..inference import load
    from ..inference.benchmarking import benchmark

    with speaking_as("benchmark"):
        model = load(arguments.model, arguments.device, arguments.dtype)
        scores = benchmark(
            model, arguments.tasks, arguments.limit, arguments.num_fewshot, arguments.batch_size, arguments.chat
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
    parser = CommandParser(prog="textkeep benchmark", description=__doc__)
    parser.add_argument("model", metavar="MODEL", help="run directory, .ckpt file, hub id, folder or asset:NAME")
    parser.add_argument(
        "--tasks",
        nargs="+",
        default=list(DEFAULT_TASKS),
        metavar="TASK",
        help="tasks of lm-eval, or YAML files of your own (default: %(default)s)",
    )
    parser.add_argument("--limit", type=positive, help="at most this many items per task")
    parser.add_argument(
        "--num-fewshot", type=not_negative, help="examples in the prompt (default: the task's own number)"
    )
    parser.add_argument("--batch-size", type=positive, default=8, help="sequences per batch (default: 8)")
    parser.add_argument("--chat", action="store_true", help="use the model's chat template for the prompts")
    add_model_options(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("-o", "--output", type=Path, help="also write the JSON to a file")
    add_overwrite_option(parser)
    return parser
