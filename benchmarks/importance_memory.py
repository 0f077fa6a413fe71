"""The memory of a measurement: the sum for large models, and a measured 1B model to check it.

    python -m benchmarks.importance_memory                       # the table; nothing is allocated
    python -m benchmarks.importance_memory --measure 1b          # seconds and peak RSS here, beside the sum

The sum counts the weights, what autograd and the taps keep for the backward pass (found by running a decoder block on
fake tensors, which have sizes but no memory), the logits, the accumulators and the kernels' scratch.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from .importance_models import batches, build

from textkeep.importance import ESTIMATORS, probe  # isort: skip
from textkeep.importance.kernels import block_plan  # isort: skip
from textkeep.importance.sites import find_sites  # isort: skip
from textkeep.importance.taps import Taps  # isort: skip

GIB = 2**30


@dataclass(frozen=True)
class Plan:
    """One measurement.

    Attributes:
        label: For the table.
        shape: Name of a configuration.
        card: GiB of the device it is meant for; ``None`` if that is not the question.
        rows: Examples in a batch.
        length: Positions.
        answers: Supervised positions.
        checkpointing: Of activations.
        estimators: Several share a pass.
        maps: Estimators whose every weight is kept in float32.
        maps_on_cpu: Where those lie.
        device: Kind of device, for the kernels' scratch memory.
    """

    label: str
    shape: str
    card: float | None = None
    rows: int = 8
    length: int = 256
    answers: int = 64
    checkpointing: bool = True
    estimators: tuple[str, ...] = ("taylor", "fisher", "signed_taylor")
    maps: tuple[str, ...] = ()
    maps_on_cpu: bool = False
    device: str = "cuda"

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments of the probe."""
        return {"keep_maps": self.maps, "maps_on_cpu": self.maps_on_cpu}


CARD_80, CARD_24 = 80e9 / GIB, 24e9 / GIB
PLANS = (
    Plan("per matrix, rows, columns", "8b", CARD_24),
    Plan("taylor of every weight, on the card", "8b", CARD_80, maps=("taylor",)),
    Plan("taylor and fisher of every weight, on the card", "8b", CARD_80, maps=("taylor", "fisher")),
    Plan("taylor of every weight, in CPU memory", "8b", CARD_24, maps=("taylor",), maps_on_cpu=True),
    Plan(
        "taylor and fisher of every weight, in CPU memory", "8b", CARD_80, maps=("taylor", "fisher"), maps_on_cpu=True
    ),
)
MEASURED = {
    "per matrix": Plan("per matrix", "1b", None, 2, 32, 16, False, ("fisher", "signed_taylor"), device="cpu"),
    "every weight": Plan(
        "taylor of every weight", "1b", None, 2, 32, 16, False, ("taylor",), ("taylor",), device="cpu"
    ),
}


class _Silent:
    """A sink that ignores what the taps report."""

    def output_gradient(self, *_: Any) -> None:
        """See ``textkeep.importance.taps.Sink``."""

    input_gradient = lookup_gradient = output_gradient


def kept_by_block(plan: Plan, dtype: torch.dtype) -> int:
    """Bytes that the forward pass of one decoder block keeps for the backward, including the taps'."""
    signed = "signed_taylor" in plan.estimators
    outputs = any(ESTIMATORS[e].block is not None for e in plan.estimators)
    kept: dict[int, int] = {}
    alive: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage.nbytes()
            alive.append(tensor)  # otherwise its address could be reused
        return tensor

    with FakeTensorMode():
        model = build(plan.shape, "cpu", dtype, num_hidden_layers=1, vocab_size=8).requires_grad_(False)
        hidden = torch.empty(plan.rows, plan.length, model.config.hidden_size, dtype=dtype).requires_grad_()
        positions = torch.zeros(1, plan.length, dtype=torch.int64)
        weights = {p.untyped_storage()._cdata for p in model.parameters()}
        taps = Taps(find_sites(model).sites, _Silent(), outputs or signed, inputs=True, keep_outputs=signed)
        with taps.attached(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            rotation = model.model.rotary_emb(hidden, positions)
            model.model.layers[0](hidden, attention_mask=None, position_embeddings=rotation)
    return sum(kept.values())


def memory_sum(plan: Plan, dtype: torch.dtype = torch.bfloat16) -> dict[str, float]:
    """GiB by purpose, on the device and in CPU memory."""
    model = build(plan.shape, "meta", dtype)
    shapes = [site.shape for site in find_sites(model).sites]
    layers = model.config.num_hidden_layers
    block = kept_by_block(plan, dtype)
    hidden = plan.rows * plan.length * model.config.hidden_size * dtype.itemsize
    # logits, their log-softmax in float32, and the gradients of both
    logits = plan.rows * plan.answers * model.config.vocab_size * 2 * (4 + dtype.itemsize)
    activations = logits + (layers * hidden + block if plan.checkpointing else layers * block)
    vectors = sum(8 * (o + i) for o, i in shapes) * len(plan.estimators)
    maps = sum(4 * o * i for o, i in shapes) * len(plan.maps)
    sums = {
        "weights": sum(p.numel() for p in model.parameters()) * dtype.itemsize,
        "activations": activations,
        "accumulators": vectors + (0 if plan.maps_on_cpu else maps),
        "scratch": max(_scratch(plan, shape, dtype) for shape in shapes),
        "CPU": maps if plan.maps_on_cpu else 0,
    }
    gib = {name: size / GIB for name, size in sums.items()}
    return {**gib, "total": sum(v for k, v in gib.items() if k != "CPU")}


def _scratch(plan: Plan, shape: tuple[int, int], dtype: torch.dtype) -> int:
    """The kernels' blocks for one matrix: gradients, |weight|, one sum for each estimator, and copies in float32."""
    together, rows = block_plan(plan.rows, *shape, torch.device(plan.device))
    blocks = 2 * together + 2 + sum(ESTIMATORS[e].block is not None for e in plan.estimators)
    return 4 * blocks * rows * shape[1]


def table() -> Iterator[str]:
    """The memory sums in GiB, as a Markdown table."""
    parts = ("weights", "activations", "accumulators", "scratch", "total")
    yield f"| 8B in bfloat16 | card | {' | '.join(parts)} | free | in CPU memory |"
    yield "| --- " * (len(parts) + 4) + "|"
    for plan in PLANS:
        sums = memory_sum(plan)
        cells = [plan.card or 0, *(sums[part] for part in parts), (plan.card or 0) - sums["total"], sums["CPU"]]
        yield f"| {plan.label} | " + " | ".join(f"{cell:.1f}" for cell in cells) + " |"


def peak_rss(reset: bool = False) -> float:
    """Peak resident memory of this process in GiB since it was last reset (Linux)."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) / 2**20


def measure(shape: str, dtype: torch.dtype) -> None:
    """Builds a model with random weights and measures it: seconds and peak resident memory beside the sum."""
    resting = peak_rss(reset=True)
    model = build(shape, "cpu", dtype)
    for plan in (p for p in MEASURED.values() if p.shape == shape):
        data = batches(model.config.vocab_size, plan.rows, plan.length, 1, "cpu", answers=plan.answers)
        peak_rss(reset=True)
        started, cpu = time.perf_counter(), time.process_time()
        snapshot = probe(model, data, plan.estimators, **plan.options)
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        expected = memory_sum(plan, dtype)
        print(
            f"{shape} {dtype}, {plan.label}: {plan.rows} examples of {plan.length}, {seconds:.0f} s ({cpu:.0f} s CPU), "
            f"peak RSS {peak_rss() - resting:.2f} GiB, sum {expected['total'] + expected['CPU']:.2f} GiB, "
            f"conservation {snapshot.meta['conservation']}",
            flush=True,
        )
        del snapshot


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", choices=sorted({p.shape for p in MEASURED.values()}), help="on this machine's CPU")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    options = parser.parse_args(argv)
    if options.measure:
        measure(options.measure, getattr(torch, options.dtype))
    else:
        print("\n".join(table()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
