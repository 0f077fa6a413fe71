"""Identities that the signed scores of a transformer block obey: a self-test of every measurement.

Where a path through two matrices has no bias and is linear in each, scaling one is scaling the other, so ``<W, G>``
agrees: up and down of a gated MLP, v and o, q and k of attention (SynFlow, arXiv 2006.05467, proves the general law).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from .sites import Site
from .weights import bias_of

PAIRS = (("up", "down"), ("v", "o"), ("q", "k"))
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3}
HALF_TOLERANCE = 0.05  # bfloat16 and float16; 0.3 to 0.8 % measured on 1B and 8B shapes


def equal_pairs(sites: Sequence[Site], blocks: nn.ModuleList) -> list[tuple[int, int]]:
    """Pairs of sites (kept, twin) whose signed scores must agree."""
    by_place = {(s.layer, s.kind): i for i, s in enumerate(sites)}
    pairs = []
    for layer, block in enumerate(blocks):
        kinds = {s.kind for s in sites if s.layer == layer}
        normed = any(
            name.rsplit(".", 1)[-1] in ("q_norm", "k_norm", "q_layernorm") for name, _ in block.named_modules()
        )
        holds = {
            "up": {"up", "down", "gate"} <= kinds,
            "v": {"v", "o"} <= kinds,
            "q": {"q", "k"} <= kinds and not normed,
        }
        unbiased = {"up": ("up",), "v": ("v",), "q": ("q", "k")}
        for first, second in PAIRS:
            if holds[first]:
                modules = [sites[by_place[(layer, kind)]].module for kind in unbiased[first]]
                if all(bias_of(module) is None for module in modules):
                    pairs.append((by_place[(layer, first)], by_place[(layer, second)]))
    return pairs


def conservation_errors(
    scores: np.ndarray, sites: Sequence[Site], pairs: Sequence[tuple[int, int]]
) -> dict[str, float]:
    """Mean absolute difference over mean absolute score, per kind of pair.

    Args:
        scores: Signed per-example scores (N, M).
        sites: The M sites.
        pairs: From :func:`equal_pairs`.
    """
    grouped: dict[str, list[tuple[int, int]]] = {}
    for first, second in pairs:
        grouped.setdefault(f"{sites[first].kind}={sites[second].kind}", []).append((first, second))
    errors = {}
    for label, members in grouped.items():
        left, right = (scores[:, list(index)] for index in zip(*members, strict=True))
        size = max(np.abs(left).mean() + np.abs(right).mean(), np.finfo(np.float64).tiny)
        errors[label] = float(2 * np.abs(left - right).mean() / size)
    return errors


def check_conservation(errors: dict[str, float], dtype: torch.dtype) -> None:
    """Compares the errors with what the compute type allows.

    Raises:
        RuntimeError: If an identity is broken: a tap, an adapter or the architecture is not what it seems.
    """
    allowed = TOLERANCE.get(dtype, HALF_TOLERANCE)
    broken = {label: error for label, error in errors.items() if not error <= allowed}
    if broken:
        detail = ", ".join(f"{label} off by {error:.2g}" for label, error in broken.items())
        raise RuntimeError(
            f"importance: self-test failed: {detail} (allowed {allowed:g} in {dtype}). If the architecture has a "
            f"non-linearity between these matrices, pass self_test=False"
        )
