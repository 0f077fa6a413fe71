"""The pieces to remove (layers, matrices, attention heads) and the weights that each consists of."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch

from textkeep.importance.edits import shrunk
from textkeep.importance.site_table import Site

TWINS = {"q": "qk", "k": "qk", "v": "vo", "o": "vo", "gate": "mlp", "up": "mlp", "down": "mlp"}
"""Matrices of a layer whose removal has the same effect: scores without q are scores without k."""
_REMOVED = (("qk", "q"), ("vo", "o"), ("mlp", "down"))


@dataclass(frozen=True)
class Part:
    """Rows or columns of a matrix.

    Attributes:
        kind: Of the matrix, such as ``o``.
        start: First column.
        stop: One past the last column; ``None`` means the whole matrix.
    """

    kind: str
    start: int = 0
    stop: int | None = None


@dataclass(frozen=True)
class Piece:
    """Something to remove, and what is zeroed for it.

    Attributes:
        name: Such as ``07.vo`` (a matrix and its twins), ``07.head.3`` or ``07``.
        level: ``layer``, ``matrix`` or ``head``.
        layer: Index of the decoder block.
        parts: Of the layer's matrices.
    """

    name: str
    level: str
    layer: int
    parts: tuple[Part, ...]


def pieces(sites: Sequence[Site], heads: int, seed: int = 0) -> list[Piece]:
    """Lists layers, matrices and at most this many heads of each layer, in random order.

    A measurement that ends early has then removed a random choice of them.
    """
    generator = random.Random(seed)
    layers = sorted({site.layer for site in sites if site.layer is not None})
    whole = [Piece(f"{layer:02d}", "layer", layer, (Part("o"), Part("down"))) for layer in layers]
    whole += [Piece(f"{at:02d}.{twins}", "matrix", at, (Part(kind),)) for at in layers for twins, kind in _REMOVED]
    for site in sites:
        if site.kind == "o" and site.head_dim and site.layer is not None:
            size = site.head_dim
            chosen = generator.sample(range(site.shape[1] // size), min(heads, site.shape[1] // size))
            for h in chosen:
                part = Part("o", h * size, (h + 1) * size)
                whole.append(Piece(f"{site.layer:02d}.head.{h}", "head", site.layer, (part,)))
    generator.shuffle(whole)
    return whole


@contextmanager
def removed(piece: Piece, sites: dict[tuple[int, str], Site]) -> Iterator[None]:
    """Sets a piece to zero within the context."""
    with ExitStack() as stack:
        for part in piece.parts:
            site = sites[piece.layer, part.kind]
            mask = torch.zeros(site.shape, dtype=torch.bool)
            mask[:, part.start : part.stop] = True
            stack.enter_context(shrunk(site, mask, 1.0))
        yield
