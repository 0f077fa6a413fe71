"""Plain autograd for each example, matrix and head: the components of every gradient score.

Independent of ``textkeep.importance``: one example at a time, ``p.grad`` of its mean loss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from textkeep.importance.site_table import Site

ENTRIES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "s": lambda w, g: w * g,
    "taylor": lambda w, g: (w * g).abs_(),
    "fisher": lambda w, g: g.square(),
    "diagonal": lambda w, g: (w * g).square_(),
}
SUMS = tuple(ENTRIES)
"""What is summed over the weights of a matrix or head."""
Values = dict[str, np.ndarray]  # sum -> (N, M); sum + ".heads" -> (N, L, H)


def per_example(
    model: nn.Module,
    sites: Sequence[Site],
    rows: Sequence[dict[str, Tensor]],
    sampled: bool = False,
    sums: Sequence[str] = SUMS,
) -> Values:
    """Returns the sums of each example (N) and matrix (M), and of the heads of output projections, with its tokens.

    Args:
        model: A causal LM.
        sites: Its decoder matrices.
        rows: Examples, (1, T) each.
        sampled: Draw labels from the model (true Fisher) instead of taking those of the data.
        sums: Which.
    """
    weights = [site.stored for site in sites]
    found: dict[str, list[Any]] = {name: [] for name in (*sums, *(f"{n}.heads" for n in sums), "tokens")}
    with _only(model, weights):
        for number, row in enumerate(rows):
            logits, targets = _predictions(model, row)
            if sampled:
                generator = torch.Generator().manual_seed(number)
                targets = torch.multinomial(torch.softmax(logits.detach().double(), -1), 1, generator=generator)[:, 0]
            gradients = torch.autograd.grad(F.cross_entropy(logits, targets), weights)
            found["tokens"].append(len(targets))
            for name in sums:
                columns = [ENTRIES[name](w.detach(), g).sum(0) for w, g in zip(weights, gradients, strict=True)]
                found[name].append([float(c.sum(dtype=torch.float64)) for c in columns])
                outputs = [(site, column) for site, column in zip(sites, columns, strict=True) if site.kind == "o"]
                found[f"{name}.heads"].append([_heads(*output) for output in outputs])
    return {name: np.array(values) for name, values in found.items()}


def on_the_way(model: nn.Module, sites: Sequence[Site], rows: Sequence[dict[str, Tensor]], nodes: int) -> Values:
    """Integrates ``<w, g(c w)>`` over c from 0 to 1, all decoder matrices scaled at once (Gauss-Legendre nodes)."""
    positions, shares = np.polynomial.legendre.leggauss(nodes)
    total: Values = {}
    weights = [site.stored.detach() for site in sites]
    kept = [weight.clone() for weight in weights]
    try:
        for position, share in zip((positions + 1) / 2, shares / 2, strict=True):
            for weight, own in zip(weights, kept, strict=True):
                weight.copy_(own * float(position))
            values = per_example(model, sites, rows, sums=("s",))
            for name in ("s", "s.heads"):  # <c w, g> / c
                total[name] = total.get(name, 0.0) + share * values[name] / position
    finally:
        for weight, own in zip(weights, kept, strict=True):
            weight.copy_(own)
    return total


def block_by_block(model: nn.Module, sites: Sequence[Site], rows: Sequence[dict[str, Tensor]], at: float) -> Values:
    """Returns ``<w, g>`` with a single layer's contribution to the residual stream scaled to ``at``: one node each."""
    total: Values = {}
    for layer in sorted({site.layer for site in sites if site.layer is not None}):
        inside = [site for site in sites if site.layer == layer]
        scaled = [site.stored.detach() for site in inside if site.kind in ("o", "down")]
        kept = [weight.clone() for weight in scaled]
        try:
            for weight in scaled:
                weight.mul_(at)
            values = per_example(model, inside, rows, sums=("s",))
        finally:
            for weight, own in zip(scaled, kept, strict=True):
                weight.copy_(own)
        linear = np.array([site.kind in ("o", "down") for site in inside])
        parts = {"s": np.where(linear, values["s"] / at, values["s"]), "s.heads": values["s.heads"] / at}
        for name, part in parts.items():
            total[name] = np.concatenate([total[name], part], axis=1) if name in total else part
    return total


def _heads(site: Site, columns: Tensor) -> list[float]:
    return columns.double().reshape(-1, site.head_dim or 1).sum(1).tolist()


def _predictions(model: nn.Module, row: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    labels = row["labels"][0, 1:]
    keep = (labels != -100).nonzero().flatten()
    inputs = {k: v for k, v in row.items() if k != "labels"}
    return model(**inputs, use_cache=False, logits_to_keep=keep).logits[0], labels[keep]


@contextmanager
def _only(model: nn.Module, weights: Sequence[Tensor]) -> Iterator[None]:
    """Enables gradients for these weights only, within the context; the model is in eval mode."""
    flags = [(p, p.requires_grad) for p in model.parameters()]
    training = model.training
    try:
        model.eval().requires_grad_(False)
        for weight in weights:
            weight.requires_grad_(True)
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
        model.train(training)
