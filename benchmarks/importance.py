"""Speed, memory and error of the importance estimators, beside other ways to get them, in one run.

    python -m benchmarks.importance                    # CPU, one thread, about three minutes
    python -m benchmarks.importance --device cuda      # cost ratios, then 1B and 8B shapes in bfloat16

Times are CPU time (process time, one thread) or CUDA events; every method runs in turn within a round, and the ratio
to a plain forward + backward on the same data is taken within the round, so that a busy machine disturbs all alike.
Medians over rounds.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import sys
import time
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
if importlib.util.find_spec("textkeep") is None:  # a checkout that is not installed
    package = types.ModuleType("textkeep")
    package.__path__ = [str(ROOT)]
    sys.modules["textkeep"] = package
sys.path.insert(0, str(ROOT))

from benchmarks.importance_models import RIVALS, Batch, batches, build, plain  # noqa: E402
from textkeep.importance import probe  # noqa: E402

DEFAULT = ("taylor", "fisher", "signed_taylor")
OURS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "signed_taylor": (("signed_taylor",), {"vectors": False}),
    "fisher (matrix)": (("fisher",), {"vectors": False}),
    "fisher (+rows, columns)": (("fisher",), {}),
    "taylor (+rows, columns)": (("taylor",), {}),
    "taylor (every weight)": (("taylor",), {"vectors": False, "keep_maps": ("taylor",)}),
    "fisher (every weight)": (("fisher",), {"vectors": False, "keep_maps": ("fisher",)}),
    "taylor+fisher+signed (+rows, columns)": (DEFAULT, {}),
}


def stopwatch(device: str) -> Callable[[Callable[[], Any]], float]:
    """A function that runs another and gives its seconds."""

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


def cost_ratios(device: str, lengths: Sequence[int], rounds: int, rows: int) -> list[dict[str, Any]]:
    """Time of every method over a plain pass, and the error of its totals against the per-example loop."""
    model = build("small", device, torch.float32)
    clock = stopwatch(device)
    results = []
    for length in lengths:
        data = batches(2048, rows, length, 2, device)
        methods: dict[str, Callable[[], Any]] = {"plain": lambda data=data: plain(model, data)}  # type: ignore[misc]
        for name, (estimators, options) in OURS.items():
            methods[name] = lambda e=estimators, o=options, d=data: probe(model, d, e, **o)  # type: ignore[misc]
        for name, rival in RIVALS.items():
            methods[name] = lambda r=rival, d=data: r(model, d)  # type: ignore[misc]
        for name in list(methods):  # a warm-up; a rival may not support the device
            try:
                methods[name]()
            except (RuntimeError, NotImplementedError) as error:
                print(f"  {name} does not run here: {str(error).splitlines()[0]}")
                del methods[name]
        ratios: dict[str, list[float]] = {name: [] for name in methods}
        for _ in range(rounds):
            unit = clock(methods["plain"])
            for name, work in methods.items():
                ratios[name].append(clock(work) / unit if name != "plain" else 1.0)
        row = {name: statistics.median(values) for name, values in ratios.items()}
        results.append(
            {"length": length, "ratios": row, "errors": errors(model, data), "peaks": peaks(device, methods)}
        )
        print(f"  T={length:4d}  " + "  ".join(f"{name} {value:.2f}" for name, value in row.items()), flush=True)
    return results


def errors(model: torch.nn.Module, data: list[Batch]) -> dict[str, float]:
    """Largest relative error of a matrix's Taylor and Fisher totals against the per-example loop."""
    truth = RIVALS["loop"](model, data)
    count = sum(len(batch["labels"]) for batch in data)
    snapshot = probe(model, data, ("taylor", "fisher"))
    names = [m.name for m in snapshot.table]

    def worst(found: dict[str, Sequence[float]]) -> list[float]:
        return [max(abs(found[n][k] / float(truth[n][k]) - 1) for n in names) for k in range(2)]

    taylor, fisher = snapshot.matrices("taylor"), snapshot.matrices("fisher")
    ours = worst({n: (taylor[n] * count, fisher[n] * count) for n in names})
    batch = worst({n: v.tolist() for n, v in RIVALS["batch_gradient"](model, data).items()})
    return {
        "ours taylor": ours[0],
        "ours fisher": ours[1],
        "batch_gradient taylor": batch[0],
        "batch_gradient fisher": batch[1],
    }


def peaks(device: str, methods: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Peak memory above the resident model, MiB; CUDA only."""
    found = {}
    for name, work in methods.items() if device == "cuda" else ():
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        resting = torch.cuda.memory_allocated()
        work()
        torch.cuda.synchronize()
        found[name] = (torch.cuda.max_memory_allocated() - resting) / 2**20
    return found


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
    plans: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
        k: OURS[k] for k in ("signed_taylor", "fisher (matrix)", "taylor+fisher+signed (+rows, columns)")
    }
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
    result["ratios"] = cost_ratios(options.device, options.lengths, options.rounds, options.rows)
    for label, value in result["ratios"][-1]["errors"].items():
        print(f"  largest relative error, {label}: {value:.2g}")
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
