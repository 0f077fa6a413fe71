"""``textkeep plan CONFIG``: predicts memory, time and disk of a run before anything is loaded."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..foundation.errors import UserError
from ..foundation.quiet import quieten
from .command_parser import CommandParser
from .config_files import check_config_files
from .options import finite, positive
from .output import print_json, print_table

if TYPE_CHECKING:
    from ..planning import Machine, Plan
    from ..planning.measured import Measured
    from .planned_run import PlannedRun

GIB = 2**30
UNITS = {"GB": 10**9, "GIB": 2**30}


def main(argv: list[str]) -> int:
    """Plans a run.

    Args:
        argv: The words after ``textkeep plan``.

    Returns:
        0 if it fits or no memory was given; 1 if it does not fit.
    """
    arguments, overrides = _parser().parse_known_args(argv)
    options = [word for path in arguments.configs for word in ("--config", str(path))] + overrides
    check_config_files(options)
    quieten()
    from ..planning import make_plan, measure_steps
    from .planned_run import PlannedRun

    run = PlannedRun(options)
    machine, settings = _machine(arguments, run), run.settings(gpu=arguments.gpu_memory is not None)
    if arguments.run and run.replicas is not None:
        raise UserError("--run measures one process, and FSDP2 divides a model among several; allowed: one of the two")
    question, length = _question(arguments), run.length(arguments.examples)
    made = make_plan(run.model, run.datamodule, run.callbacks, settings, machine, question, length)
    measured = None
    if arguments.run:
        real = PlannedRun(options)
        measured = measure_steps(real.model, real.datamodule, settings, question)
    if arguments.json:
        print_json({**made.as_dict(), "measured": None if measured is None else asdict(measured)})
    else:
        for line in _told(made, measured):
            print(line)
    return 1 if made.fits is False else 0


def _told(plan: Plan, measured: Measured | None) -> Iterator[str]:
    """Prints the tables and gives the lines after them."""
    _print_moments(plan)
    machine, pace, disk, highest = plan.machine, plan.pace, plan.disk, plan.rehearsed.highest
    if machine.usable is None or machine.memory is None:
        yield f"highest: {highest.name}, {_gib(highest.total)} GiB per rank"
    else:
        verdict = "fits" if plan.fits else "does not fit"
        yield (
            f"{verdict}: {highest.name} takes {_gib(highest.total)} GiB per rank; usable on a GPU: "
            f"{_gib(machine.usable)} GiB ({machine.spare:.0%} of {_gib(machine.memory)} left for CUDA etc.)"
        )
        first = plan.rehearsed.moments[0]
        largest = (
            "not even one row fits"
            if plan.largest is None
            else (f"{plan.largest.rows} rows, {plan.largest.positions} positions, {_gib(plan.largest.total)} GiB")
        )
        yield f"largest batch that fits ({first.name}): {largest}; the config's: {first.rows} rows"
    yield (
        f"a step: {pace.step_rows} rows on {machine.ranks} ranks, {pace.step_flops / 1e12:.3g} TFLOP per rank, "
        f"{_duration(pace.step_seconds)} at {machine.utilisation:.0%} of {machine.tflops:g} TFLOP/s"
    )
    if pace.epoch_steps is not None and pace.epoch_seconds is not None:
        yield f"an epoch: {pace.epoch_steps} steps, {_duration(pace.epoch_seconds)} without validation and measurements"
    checkpoints = _disk(disk.checkpoint, disk.checkpoints, "checkpoint")
    yield f"disk: {checkpoints}; {_disk(disk.snapshot, disk.snapshots, 'measurement of importance')}"
    if measured is not None:
        yield (
            f"measured on {measured.device}: {_gib(measured.peak)} GiB ({measured.how}), {measured.seconds:.3g} s a "
            f"step of {measured.rows} rows: {pace.step_flops / measured.seconds / 1e12:.3g} TFLOP/s"
        )
    for missing in plan.rehearsed.left_out:
        yield f"left out: {missing}"
    for change in plan.advice:
        yield f"change: {change}"
    yield _assumed(plan)


def _print_moments(plan: Plan) -> None:
    moments = plan.rehearsed.moments
    labels = list(dict.fromkeys(label for moment in moments for label in moment.parts))
    rows = [[label, *[_gib(moment.parts.get(label, 0)) for moment in moments]] for label in labels]
    counts = "; ".join(
        f"{name} {every / 1e6:.4g} M, {trained / 1e6:.4g} M of them trained"
        for name, (trained, every) in plan.rehearsed.sizes.parameters.items()
    )
    print(f"parameters: {counts}")
    print_table(
        "peak memory of one rank, GiB",
        ["", *[moment.name for moment in moments]],
        [*rows, ["all", *[_gib(moment.total) for moment in moments]]],
    )


def _assumed(plan: Plan) -> str:
    question = plan.question
    return (
        f"assumed: rows of {question.seconds:g} s, a question of {question.question} and an answer of "
        f"{question.answer} tokens (--seconds, --question-tokens, --answer-tokens); trainer.precision "
        f"{plan.settings.precision}, {plan.settings.accumulate} batches a step; data in memory, NCCL and file caches "
        "not counted"
    )


def _gib(size: int) -> str:
    return f"{size / GIB:.2f}"


def _disk(size: int, count: int | None, what: str) -> str:
    gigabytes = f"{size / 1e9:.3g} GB a {what}"
    return f"{gigabytes}, their number is not known" if count is None else f"{gigabytes}, {count} of them"


def _duration(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds < 600 else f"{seconds / 3600:.3g} h"


def _machine(arguments: argparse.Namespace, run: PlannedRun) -> Machine:
    from ..planning import Machine

    gpus, nodes = run.devices
    return Machine(
        arguments.gpus or gpus,
        arguments.nodes or nodes,
        arguments.gpu_memory,
        arguments.spare,
        arguments.tflops,
        arguments.utilisation,
    )


def _question(arguments: argparse.Namespace) -> Any:
    from ..planning import Question

    return Question(arguments.seconds, arguments.question_tokens, arguments.answer_tokens)


def memory(text: str) -> int:
    """Reads a size of memory: ``80GB`` (10^9) or ``74.5GiB`` (2^30)."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?(GB|GiB)", text, re.IGNORECASE)
    if found is None or float(found[1]) == 0:
        raise argparse.ArgumentTypeError(f"must be a size such as 80GB or 74.5GiB, got {text!r}")
    return int(float(found[1]) * UNITS[found[2].upper()])


def share(text: str) -> float:
    """Reads a share above 0 and below 1."""
    value = finite(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"must lie between 0 and 1, got {text!r}")
    return value


def above_zero(text: str) -> float:
    """Reads a number above 0."""
    value = finite(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"must be above 0, got {text!r}")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="textkeep plan",
        description="Predict a run's memory, time and disk from its config alone: no weights and no data "
        "are read. Options that are not listed here go to the config (--model.gradient_checkpointing true).",
    )
    parser.add_argument("configs", nargs="+", type=Path, metavar="CONFIG", help="config files, merged in order")
    parser.add_argument("--gpus", type=positive, help="GPUs per node (default: the config's devices, or 1)")
    parser.add_argument("--nodes", type=positive, help="nodes (default: the config's)")
    parser.add_argument("--gpu-memory", type=memory, metavar="80GB", help="memory of one GPU; without it, no verdict")
    parser.add_argument("--spare", type=share, default=0.1, help="share left for CUDA and fragmentation (default: 0.1)")
    parser.add_argument("--tflops", type=above_zero, default=989.0, help="speed of one GPU (default: 989, an H100)")
    parser.add_argument(
        "--utilisation", type=share, default=0.35, help="share of that speed that is achieved (default: 0.35)"
    )
    parser.add_argument("--examples", type=positive, help="training examples, for the length of an epoch")
    parser.add_argument("--seconds", type=above_zero, default=7.5, help="length of a spoken question (default: 7.5)")
    parser.add_argument("--question-tokens", type=positive, default=25, help="length of its text (default: 25)")
    parser.add_argument("--answer-tokens", type=positive, default=40, help="length of an answer (default: 40)")
    parser.add_argument("--run", action="store_true", help="also load the weights and measure three steps here")
    parser.add_argument("--json", action="store_true", help="JSON instead of tables")
    return parser
