"""Run by test_distributed: one rank of two; measures through DDP, then takes a training step."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from textkeep.importance import probe

from .oracle import make_batch, tiny_llama

ESTIMATORS = ("taylor", "fisher", "signed_taylor", "taylor_batch", "fisher_sampled", "wanda", "magnitude")
BATCHES = [make_batch(3, seed=s, padded=True) for s in range(3)]


def main(rank: int, store: str, folder: Path) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    model = tiny_llama(tied=True)
    wrapped = DistributedDataParallel(model)
    mine = BATCHES[:2] if rank == 0 else BATCHES[2:]  # six examples and three
    snapshot = probe(wrapped, mine, ESTIMATORS, include=(), top_fraction=0.05, draws=2)
    alone = probe(wrapped, mine, "taylor", distributed=False)
    assert len(alone.losses) == (6 if rank == 0 else 3)
    nothing = probe(wrapped, BATCHES if rank == 0 else [], "signed_taylor")  # a rank without examples
    assert len(nothing.losses) == 9
    snapshot.save(folder / f"rank{rank}")
    batch = BATCHES[rank]
    wrapped(input_ids=batch["input_ids"], labels=batch["labels"]).loss.backward()
    torch.save({n: p.grad for n, p in model.named_parameters()}, folder / f"grad{rank}.pt")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
