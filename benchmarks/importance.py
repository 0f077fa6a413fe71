"""Speed, memory and error of the importance estimators and of other ways to compute them, in one run.

    pip install -c constraints.txt -e ".[bench]"       # BackPACK and Torch-Pruning; without them they are left out
    python -m benchmarks.importance                    # CPU, one thread, about ten minutes
    python -m benchmarks.importance --device cuda      # cost ratios, then 1B and 8B shapes in bfloat16

Times are CPU time (process time, one thread) or CUDA events. Every method runs in turn within a round, with the plain
forward + backward three times among them; a ratio is taken within its round, so that a busy machine disturbs all alike.
Figures are medians over rounds. Memory is that of the tensors alive at once, without the model; errors are against a
per-example loop in float64.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import json
import statistics
import sys
import time
import types
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[1]
if importlib.util.find_spec("textkeep") is None:  # a checkout that is not installed
    package = types.ModuleType("textkeep")
    package.__path__ = [str(ROOT)]
    sys.modules["textkeep"] = package
sys.path.insert(0, str(ROOT))

from benchmarks.importance_models import Batch, batches, build, plain  # noqa: E402
from benchmarks.importance_rivals import RIVALS, loop  # noqa: E402
from benchmarks.live_memory import peak_mib  # noqa: E402
from textkeep.importance import probe  # noqa: E402

DEFAULT = ("taylor", "fisher", "signed_taylor")
Plan = tuple[tuple[str, ...], dict[str, Any]]
OURS: dict[str, Plan] = {
    "signed_taylor": (("signed_taylor",), {"vectors": False}),
    "fisher (matrix)": (("fisher",), {"vectors": False}),
    "fisher (+rows, columns)": (("fisher",), {}),
    "taylor (every weight)": (("taylor",), {"vectors": False, "keep_maps": ("taylor",)}),
    "fisher (every weight)": (("fisher",), {"vectors": False, "keep_maps": ("fisher",)}),
    "all three (+rows, columns)": (DEFAULT, {}),
}


def stopwatch(device: str) -> Callable[[Callable[[], Any]], float]:
    """A function that runs another and returns its seconds."""

    def cpu(work: Callable[[], Any]) -> float:
        start = time.process_time()
        work()
        return time.process_time() - start

    def cuda(work: Callable[[], Any]) -> float:
        start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize()
        start.record()
        work()
        stop.record()
        torch.cuda.synchronize()
        return start.elapsed_time(stop) / 1000

    return {"cpu": cpu, "cuda": cuda}[device]


def methods_on(model: nn.Module, data: list[Batch]) -> dict[str, Callable[[], Any]]:
    """Every method as a function without arguments."""
    ours = {name: partial(probe, model, data, e, **options) for name, (e, options) in OURS.items()}
    return {"plain": partial(plain, model, data), **ours, **{n: partial(r, model, data) for n, r in RIVALS.items()}}


def runnable(methods: dict[str, Callable[[], Any]]) -> dict[str, Callable[[], Any]]:
    """Those that run here, after a warm-up; a rival may be missing or not support the device."""
    kept = {}
    for name, work in methods.items():
        try:
            work()
            kept[name] = work
        except (ImportError, RuntimeError, NotImplementedError) as error:
            print(f"  {name} does not run here: {str(error).splitlines()[0]}")
    return kept


def cost_ratios(device: str, lengths: Sequence[int], rounds: int, rows: int) -> list[dict[str, Any]]:
    """Time of every method over a plain pass, for each length."""
    model = build("small", device, torch.float32)
    clock = stopwatch(device)
    results = []
    for length in lengths:
        methods = runnable(methods_on(model, batches(2048, rows, length, 2, device)))
        work_of_plain = methods.pop("plain")
        ratios: dict[str, list[float]] = {name: [] for name in methods}
        for _ in range(rounds):
            units, seconds = [clock(work_of_plain)], {}
            for position, (name, work) in enumerate(methods.items(), start=1):
                seconds[name] = clock(work)
                if position in (len(methods) // 2, len(methods)):
                    units.append(clock(work_of_plain))
            for name, value in seconds.items():
                ratios[name].append(value / statistics.median(units))
        row = {name: statistics.median(values) for name, values in ratios.items()}
        results.append({"length": length, "ratios": row, "all": ratios})
        print(f"  T={length:4d}  " + "  ".join(f"{name} {value:.2f}" for name, value in row.items()), flush=True)
    return results


def memory(device: str, rows: int, length: int) -> dict[str, dict[str, float]]:
    """Peak MiB of live tensors for every method, and how much of that is a lasting result: the map."""
    model = build("small", device, torch.float32)
    data = batches(2048, rows, length, 1, device)
    resting = [*model.parameters(), *model.buffers(), *(t for batch in data for t in batch.values())]
    found = {}
    for name, work in runnable(methods_on(model, data)).items():
        maps = OURS[name][1].get("keep_maps", ()) if name in OURS else ()
        entries = sum(m.numel() for m in model.model.layers.parameters() if m.dim() == 2)
        found[name] = {"peak_mib": peak_mib(work, resting), "kept_mib": len(maps) * entries * 4 / 2**20}
    largest = max(p.numel() * p.element_size() for p in model.parameters()) / 2**20
    print(f"  tensors alive at once at T={length}, MiB (a result that stays in brackets); largest matrix {largest:.1f}")
    for name, row in found.items():
        print(f"    {name:28s} {row['peak_mib']:8.1f}  ({row['kept_mib']:.1f})", flush=True)
    return found


def errors(device: str, rows: int, length: int) -> dict[str, float]:
    """Largest relative error of a matrix total against the per-example loop in float64."""
    model = build("small", device, torch.float32)
    data = batches(2048, rows, length, 1, device)
    truth = loop(copy.deepcopy(model).double(), data)
    snapshot = probe(model, data, ("taylor", "fisher"), keep_maps=("taylor", "fisher"))
    names = [m.name for m in snapshot.table]

    def worst(estimator: str, found: Mapping[str, Any]) -> float:
        return max(abs(float(found[name]) / float(truth[estimator][name]) - 1) for name in names)

    ours = {e: {n: v * rows for n, v in snapshot.matrices(e).items()} for e in ("taylor", "fisher")}
    maps = {e: {n: m.double().sum() * rows for n, m in snapshot.parameters(e).items()} for e in ("taylor", "fisher")}
    found = {"ours": ours, "ours, sum of every weight": maps}
    rivals = runnable({name: partial(rival, model, data) for name, rival in RIVALS.items()})
    found |= {name: work() for name, work in rivals.items()}
    rows_of = {f"{name}, {e}": worst(e, totals[e]) for name, totals in found.items() for e in totals}
    for label, value in rows_of.items():
        print(f"  largest relative error of a matrix total, {label}: {value:.2g}", flush=True)
    return rows_of


def large(name: str, device: str, rows: int, length: int, checkpointing: bool) -> dict[str, Any]:
    """Per-matrix statistics of a large random model in bfloat16: seconds an example and peak memory."""
    model = build(name, device, torch.bfloat16)
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.train()
    data = batches(model.config.vocab_size, rows, length, 1, device, answers=length // 4)
    clock = stopwatch(device)
    weights = sum(p.numel() * p.element_size() for p in model.parameters()) / 2**30
    row: dict[str, Any] = {"model": name, "rows": rows, "length": length, "weights_gib": weights, "methods": {}}
    plans = {k: OURS[k] for k in ("signed_taylor", "fisher (matrix)", "all three (+rows, columns)")}
    for label, (estimators, options) in plans.items():
        probe(model, data, estimators, **options)
        torch.cuda.reset_peak_memory_stats()
        seconds = clock(lambda e=estimators, o=options: probe(model, data, e, **o))  # type: ignore[misc]
        snapshot = probe(model, data, estimators, **options)
        row["methods"][label] = {
            "ms_per_example": 1000 * seconds / rows,
            "peak_gib": torch.cuda.max_memory_allocated() / 2**30,
            "conservation": snapshot.meta["conservation"],
        }
        print(f"  {name} {label}: {row['methods'][label]}", flush=True)
    frozen = clock(lambda: plain_frozen(model, data))
    row["forward_ms_per_example"] = 1000 * frozen / rows
    return row


@torch.no_grad()
def plain_frozen(model: torch.nn.Module, data: list[Batch]) -> None:
    """A forward pass, the unit for models whose gradients do not fit."""
    for batch in data:
        model(input_ids=batch["input_ids"], use_cache=False, logits_to_keep=1)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--lengths", type=int, nargs="+", default=[16, 32, 64, 128, 256])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=8, help="examples in a batch")
    parser.add_argument("--large", nargs="*", default=["1b", "8b"], help="shapes measured on cuda")
    parser.add_argument("--out", type=Path, default=None, help="JSON file")
    options = parser.parse_args(argv)
    if options.device == "cpu":
        torch.set_num_threads(1)
    name = torch.cuda.get_device_name() if options.device == "cuda" else f"CPU, {torch.get_num_threads()} thread"
    print(f"{name}, torch {torch.__version__}; time over a plain forward + backward, medians of {options.rounds}")
    result: dict[str, Any] = {"device": name, "torch": torch.__version__, "ratios": [], "large": []}
    result["errors"] = errors(options.device, options.rows, 64)
    result["memory"] = memory(options.device, options.rows, 128)
    result["ratios"] = cost_ratios(options.device, options.lengths, options.rounds, options.rows)
    for shape in options.large if options.device == "cuda" else ():
        free = torch.cuda.mem_get_info()[0] / 2**30
        if {"1b": 12, "8b": 30}.get(shape, 0) > free:
            print(f"  {shape}: skipped, {free:.0f} GiB free")
            continue
        result["large"].append(large(shape, options.device, 8, 256, checkpointing=shape == "8b"))
        torch.cuda.empty_cache()
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
