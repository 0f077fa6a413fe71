"""The settings in which every estimator must equal the loop: each gives snapshots and the truth they must equal."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import nn

from textkeep.importance import Snapshot, probe

from .oracle import ALL, MAPPED, Truth, make_batch, recorded_probe, tiny_llama, truth

DRAWS = 2
PLAIN = [make_batch(4, seed=1), make_batch(3, seed=2)]
PADDED = [make_batch(4, seed=1, padded=True), make_batch(3, seed=2, padded=True, left=True)]
Case = tuple[list[Snapshot], Truth]


def snapshots(model: nn.Module, batches: list[dict], **options) -> tuple[list[Snapshot], list[list[dict]]]:
    """All estimators in one pass with rows, columns and single weights, then each alone for its total only.

    The latter takes other ways through the code: Gram matrices, no maps, input taps only. The label draws come along.
    """
    whole, drawn = recorded_probe(model, batches, DRAWS, estimators=ALL, keep_maps=MAPPED, **options)
    return [whole, *(probe(model, batches, e, vectors=False, draws=DRAWS, **options) for e in ALL)], drawn


def _case(model: nn.Module, batches: list[dict], reference: nn.Module | None = None, **options) -> Case:
    found, drawn = snapshots(model, batches, **options)
    return found, truth(reference or model, batches, drawn)


def plain() -> Case:
    return _case(tiny_llama(), PLAIN)


def padding() -> Case:
    """On the right in one batch, on the left in the other."""
    return _case(tiny_llama(), PADDED)


def checkpointing(reentrant: bool) -> Case:
    model = tiny_llama(tied=True)
    reference = copy.deepcopy(model)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    model.train()
    return _case(model, PADDED, reference)


def tied_embeddings() -> Case:
    """With the shared matrix among the scored ones (but for wanda, which scores inputs of Linear layers)."""
    model = tiny_llama(tied=True)
    estimators = tuple(e for e in ALL if e != "wanda")
    maps = tuple(e for e in MAPPED if e != "wanda")
    whole, drawn = recorded_probe(model, PADDED, DRAWS, estimators=estimators, keep_maps=maps, include=("embeddings",))
    assert whole.table[-1].tied_to == "lm_head"
    alone = [probe(model, PADDED, e, vectors=False, draws=DRAWS, include=("embeddings",)) for e in estimators]
    return [whole, *alone, probe(model, PADDED, "wanda")], truth(model, PADDED, drawn)


def lora(dora: bool = False) -> Case:
    """Scores are of the effective weight: the truth is that of the merged model."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(7)
    config = LoraConfig(
        r=3, lora_alpha=6, lora_dropout=0.0 if dora else 0.3, target_modules="all-linear", use_dora=dora
    )
    model = get_peft_model(tiny_llama(tied=True), config).double()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.2)
        if "lora_magnitude" in name:
            parameter.data.mul_(1.3)
    merged = copy.deepcopy(model).merge_and_unload().requires_grad_(True)
    return _case(model.train(), PADDED, merged)


def bfloat16_autocast() -> Case:
    model = tiny_llama().float()
    return _case(model, PADDED, copy.deepcopy(model).double(), autocast=torch.bfloat16)


def float32() -> Case:
    model = tiny_llama().float()
    return _case(model, PADDED, copy.deepcopy(model).double())


ONE_PROCESS: dict[str, Callable[[], Case]] = {
    "plain": plain,
    "padding": padding,
    "checkpointing, not reentrant": lambda: checkpointing(reentrant=False),
    "checkpointing, reentrant": lambda: checkpointing(reentrant=True),
    "tied embeddings": tied_embeddings,
    "LoRA": lora,
    "DoRA": lambda: lora(dora=True),
    "float32": float32,
    "bfloat16 autocast": bfloat16_autocast,
}


@lru_cache
def measured(setting: str) -> Case:
    """The case of a setting in one process, measured once."""
    return ONE_PROCESS[setting]()
