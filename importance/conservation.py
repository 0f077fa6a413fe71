"""Identities that the signed scores of a transformer block obey: a self-test of every measurement.

Where a path through two matrices has no bias and is linear in each, scaling one is the same as scaling the other, so
``<W, G>`` agrees: up and down of a gated MLP, v and o, q and k of attention (SynFlow, arXiv 2006.05467, proves the
general law).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from .site_table import Site
from .weights import bias_of

PAIRS = {("up", "down"): ("gate",), ("v", "o"): ("q", "k"), ("q", "k"): ("v", "o")}  # and the siblings they need
UNBIASED = {"up": ("up",), "v": ("v",), "q": ("q", "k")}
TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-3}  # float64 models still have parts in float32 (rotary angles)
HALF_TOLERANCE = 0.05  # bfloat16 and float16; 0.3 to 0.8 % measured on 1B and 8B shapes


def equal_pairs(sites: Sequence[Site], blocks: nn.ModuleList) -> list[tuple[int, int]]:
    """Pairs of sites (kept, twin) whose signed scores must agree, as far as the module tree tells.

    An identity needs its matrices side by side in one module and nothing with an effect between them: no
    bias on the way, no norm (of the queries or keys for q and k, of anything else for v and o, or up and down), no
    convolution, gate or further matrix.
    """
    by_place = {(s.layer, s.kind): i for i, s in enumerate(sites)}
    parents = {id(child): parent for block in blocks for parent in block.modules() for child in parent.children()}
    pairs = []
    for layer in range(len(blocks)):
        for (first, second), members in PAIRS.items():
            places = {kind: by_place.get((layer, kind)) for kind in (first, second, *members)}
            if any(place is None for place in places.values()):
                continue
            found = {kind: sites[place] for kind, place in places.items() if place is not None}
            parent = parents.get(id(found[first].module))
            if parent is not None and _conserved(first, found, parent):
                pairs.append((by_place[(layer, first)], by_place[(layer, second)]))
    return pairs


def _conserved(first: str, found: Mapping[str, Site], parent: nn.Module) -> bool:
    """Returns whether the identity that begins with ``first`` holds in one attention or MLP module."""
    children = {id(child): name for name, child in parent.named_children()}
    together = all(children.pop(id(site.module), None) for site in found.values())
    if not together or any(site.shared for site in found.values()):
        return False
    if any(bias_of(found[kind].module) is not None for kind in UNBIASED[first]):
        return False
    if first == "q" and found["q"].shape[0] != found["o"].shape[1]:
        return False  # the queries' matrix makes a gate too
    return not any(_interferes(first, name, parent.get_submodule(name)) for name in children.values())


def _interferes(first: str, name: str, child: nn.Module) -> bool:
    """Returns whether another child of the module, a norm or further weights, may act between the matrices."""
    if "norm" in f"{name} {type(child).__name__}".lower():
        of_queries = name.lower().startswith(("q", "k"))  # q_norm, k_norm, query_layernorm, key_layernorm
        return of_queries == (first == "q")
    return next(child.parameters(), None) is not None


def conservation_errors(
    scores: np.ndarray, sites: Sequence[Site], pairs: Sequence[tuple[int, int]]
) -> dict[str, float]:
    """Returns the mean absolute difference over the mean absolute score, for each kind of pair.

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


def broken_identities(errors: Mapping[str, float], dtype: torch.dtype) -> dict[str, float]:
    """Picks the errors that exceed rounding: a tap, an adapter or the architecture is not what it seems."""
    return {label: error for label, error in errors.items() if not error <= allowed_error(dtype)}


def allowed_error(dtype: torch.dtype) -> float:
    """Returns the relative error of a signed score that is rounding in this compute type."""
    return TOLERANCE.get(dtype, HALF_TOLERANCE)
