"""Two gloo processes on the CPU: measures under DDP and FSDP2, and trains before and after.

Run as a module it is one rank; :func:`errors_of_two_ranks` starts both, once, and gives what they found.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

from textkeep.importance import probe

from .oracle import ALL, MAPPED, Truth, error, make_batch, recorded_probe, relative, tiny_llama, truth

ROOT = Path(__file__).parents[2]
DRAWS = 2
BATCHES = [make_batch(3, seed=s, padded=True, left=s == 1) for s in range(3)]
SHARES = (BATCHES[:2], BATCHES[2:])  # six examples and three


def ddp(model: nn.Module) -> nn.Module:
    return DistributedDataParallel(model)


def fsdp2(model: nn.Module, **options) -> nn.Module:
    """Each block and the rest sharded, as Lightning's and torchtune's recipes do."""
    mesh = init_device_mesh("cpu", (2,))
    for block in model.model.layers:
        fully_shard(block, mesh=mesh, **options)
    return fully_shard(model, mesh=mesh, **options)


def checkpointed_fsdp2(model: nn.Module) -> nn.Module:
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return fsdp2(model.train())


TWO_RANKS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "DDP, 2 ranks": ddp,
    "FSDP2, 2 ranks": fsdp2,
    "FSDP2, 2 ranks, checkpointing": checkpointed_fsdp2,
}


def exactness(wrap: Callable[[nn.Module], nn.Module], expected: Truth, rank: int) -> dict[str, float]:
    """Largest error of each estimator, from all in one pass and from each alone, and of the masks across ranks."""
    model = wrap(tiny_llama(tied=True))
    options = {"draws": DRAWS, "top_fraction": 0.05}
    whole = probe(model, SHARES[rank], ALL, keep_maps=MAPPED, **options)
    assert whole.meta["world_size"] == 2
    single = probe(tiny_llama(tied=True), BATCHES, ALL, distributed=False, **options)
    assert whole.meta["probe"] == single.meta["probe"]
    for estimator, masks in single.masks.items():
        assert all((a == b).all() for a, b in zip(masks, whole.masks[estimator], strict=True)), estimator
    alone = [probe(model, SHARES[rank], e, vectors=False, draws=DRAWS) for e in ALL]
    extras = [e for e in ALL if e != "wanda"]
    alone.append(probe(model, SHARES[rank], extras, draws=DRAWS, include=("embeddings", "norms")))
    return {e: max(error(s, expected, e) for s in (whole, *alone) if e in s.estimators) for e in ALL}


def training_is_unharmed(wrap: Callable[[nn.Module], nn.Module], rank: int) -> float:
    """Largest difference between the weights after three steps with probes between them, and without. Must be 0."""
    trained = []
    for probes in (True, False):
        model = wrap(tiny_llama(tied=True)).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        for step in range(3):
            if probes:
                before = _picture(model)
                probe(model, SHARES[rank], ("taylor", "signed_taylor", "fisher_sampled", "ablation"), draws=1)
                _same(before, _picture(model))
            batch = BATCHES[(rank + step) % 3]
            model(input_ids=batch["input_ids"], labels=batch["labels"], use_cache=False).loss.backward()
            if probes:  # in the middle of an accumulation window: gradients are there
                probe(model, SHARES[rank], "taylor")
            optimizer.step()
            optimizer.zero_grad()
        trained.append([_local(p).clone() for p in model.parameters()])
    return max(float((a - b).abs().max()) for a, b in zip(*trained, strict=True) if a.numel())


def _local(tensor: Tensor) -> Tensor:
    tensor = tensor.detach()
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def _picture(model: nn.Module) -> dict[str, Any]:
    return {
        "flags": [m.training for m in model.modules()],
        "required": [p.requires_grad for p in model.parameters()],
        "gradients": [None if p.grad is None else _local(p.grad).clone() for p in model.parameters()],
        "random": torch.get_rng_state(),
    }


def _same(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert before["flags"] == after["flags"]
    assert before["required"] == after["required"]
    assert torch.equal(before["random"], after["random"])
    for one, other in zip(before["gradients"], after["gradients"], strict=True):
        assert (one is None and other is None) or torch.equal(one, other)


def edges(rank: int) -> None:
    """A rank alone; a rank without examples, which FSDP cannot have; FSDP that computes in bfloat16."""
    some = SHARES[0] if rank == 0 else []
    model = ddp(tiny_llama(tied=True))
    assert len(probe(model, SHARES[rank], "taylor", distributed=False).losses) == (6, 3)[rank]
    assert len(probe(model, some, "signed_taylor").losses) == 6
    # The rank that saw nothing must judge the self-test by the others' precision, not by float64's.
    assert len(probe(ddp(tiny_llama(tied=True).float()), some, "signed_taylor").losses) == 6
    with pytest.raises(ValueError, match="none on rank 1"):
        probe(fsdp2(tiny_llama()), some)
    exact = probe(tiny_llama(), BATCHES, distributed=False)
    half = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    rough = probe(fsdp2(tiny_llama().float(), mp_policy=half), SHARES[rank])  # the self-test must know of bfloat16
    assert relative(rough.scores("taylor"), exact.scores("taylor")) < 0.05


def ablations(wrap: Callable[[nn.Module], nn.Module], rank: int) -> float:
    """Largest difference of the effects from those of one process; groups are told of as often on either rank."""
    model, worst = wrap(tiny_llama(tied=True)), 0.0
    for options in ({}, {"ablate": "matrix"}, {"ablate": "head", "ablate_with": "mean"}):
        single = probe(tiny_llama(tied=True), BATCHES, "ablation", distributed=False, **options)
        told: list[int] = []
        found = probe(model, SHARES[rank], "ablation", progress=lambda _, done, total: told.append(total), **options)  # noqa: B023
        assert found.groups == single.groups
        assert found.meta["ablation"] == single.meta["ablation"]
        assert len(told) == 2 * len(found.groups["ablation"]) + 1  # two batches of rank 0, one of rank 1
        worst = max(worst, float(abs(found.examples["ablation"] - single.examples["ablation"]).max()))
    return worst


def main(rank: int, store: str, folder: Path) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    reference = tiny_llama(tied=True)
    _, drawn = recorded_probe(reference, BATCHES, DRAWS, estimators="fisher_sampled", distributed=False)
    expected = truth(copy.deepcopy(reference), BATCHES, drawn)
    found = {}
    for name, wrap in TWO_RANKS.items():
        found[name] = {**exactness(wrap, expected, rank), "training": training_is_unharmed(wrap, rank)}
        found[name]["ablation"] = ablations(wrap, rank)
    edges(rank)
    (folder / f"rank{rank}.json").write_text(json.dumps(found))
    distributed.destroy_process_group()


def errors_of_two_ranks(folder: Path) -> list[dict[str, dict[str, float]]]:
    """Setting -> estimator -> largest error, for each rank."""
    command = [sys.executable, "-m", "tests.importance.two_ranks"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    workers = [
        subprocess.Popen([*command, str(rank), str(folder / "store"), str(folder)], cwd=ROOT, env=environment)
        for rank in range(2)
    ]
    assert [worker.wait(timeout=240) for worker in workers] == [0, 0]
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
