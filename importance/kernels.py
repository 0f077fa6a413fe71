"""From factors to scores: gradients formed block by block, scored while they are in cache, and forgotten."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .estimators import BlockScore, Finish
from .factors import Factors

CPU_BLOCK = 1 << 19  # entries, 2 MiB a buffer: smaller ones stay in cache but make slower products (measured)
CUDA_BLOCK = 1 << 26  # entries: large enough to fill the device, 256 MiB a buffer


class Workspace:
    """Scratch memory that lives for one measurement, one flat buffer for each name, type and device."""

    def __init__(self) -> None:
        self._flat: dict[tuple[str, torch.dtype, torch.device], Tensor] = {}

    def take(self, name: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
        """Lends a tensor of ``shape`` with undefined contents, valid until the next call with the same name."""
        size = math.prod(shape)
        flat = self._flat.get((name, dtype, device))
        if flat is None or flat.numel() < size:
            flat = self._flat[(name, dtype, device)] = torch.empty(size, dtype=dtype, device=device)
        return flat[:size].view(shape)


@dataclass
class Tally:
    """Running sums of one estimator at one site.

    Attributes:
        rows: (O,) float64, sum over examples of the row sums (absolute ones for a signed score); ``None`` if not kept.
        columns: (I,) float64.
        map: (O, I), sum over examples of what the estimator adds for every entry; ``None`` unless asked for.
            It is finished, and rows and columns are taken from it, once at the end.
    """

    rows: Tensor | None
    columns: Tensor | None
    map: Tensor | None = None

    def scratch(self, dtype: torch.dtype, device: torch.device, scale: float) -> bool:
        """Returns whether a block's sums are computed in scratch memory (else directly in the map, or not at all)."""
        if self.map is None:
            return self.rows is not None
        return scale != 1 or self.map.device != device or self.map.dtype != dtype

    def add_entries(self, rows: slice, sums: Tensor, magnitude: Tensor, finish: Finish, scale: float) -> None:
        """Adds the sums (R, I) of some rows, computed in scratch memory, to the map or to the row and column sums."""
        if self.map is not None:
            self.map[rows].add_(sums.to(self.map.device), alpha=scale)
        elif self.rows is not None and self.columns is not None:
            entries = finish.finish(sums, magnitude)
            self.rows[rows] += entries.sum(1, dtype=torch.float64) * scale
            self.columns += entries.sum(0).double() * scale

    def complete(self, weight: Tensor | None, finish: Finish | None, count: int) -> None:
        """Turns the sums into means over ``count`` examples, in place; a map, if kept, gives rows and columns.

        Args:
            weight: (O, I); needed, as ``finish`` is, if there is a map.
            finish: How the map is finished.
            count: Number of examples, of all ranks.
        """
        if self.map is not None and weight is not None and finish is not None:
            entries = self.map.to(weight.device)
            entries = finish.finish(entries, weight.to(entries.dtype).abs()).div_(count)
            if self.rows is not None:
                self.rows, self.columns = entries.sum(1, dtype=torch.float64), entries.sum(0, dtype=torch.float64)
            if entries is not self.map:
                self.map.copy_(entries)
        elif self.rows is not None and self.columns is not None:
            self.rows /= count
            self.columns /= count

    def add_vectors(self, rows: Tensor, columns: Tensor, scale: float = 1.0) -> None:
        """Adds row sums (O,) and column sums (I,)."""
        if self.rows is not None and self.columns is not None:
            self.rows += rows.double() * scale
            self.columns += columns.double() * scale


def block_plan(
    examples: int, rows: int, columns: int, device: torch.device, budget: int | None = None
) -> tuple[int, int]:
    """Chooses examples and rows of a block: one example on the CPU, as many as fit on an accelerator."""
    limit = budget or (CPU_BLOCK if device.type == "cpu" else CUDA_BLOCK)
    together = 1 if device.type == "cpu" else max(1, min(examples, limit // (rows * columns)))
    return together, max(1, min(rows, limit // (together * columns)))


def _slices(total: int, size: int) -> Iterator[slice]:
    for start in range(0, total, size):
        yield slice(start, min(start + size, total))


def score_entries(
    factors: Factors,
    weight: Tensor,
    estimators: Mapping[str, BlockScore],
    tallies: Mapping[str, Tally],
    workspace: Workspace,
    scale: float = 1.0,
) -> dict[str, Tensor]:
    """Forms every example's gradient once and scores it with all estimators.

    Args:
        factors: Gradients of B examples with respect to an (O, I) weight.
        weight: (O, I).
        estimators: By name.
        tallies: Running sums by estimator, added to.
        workspace: Scratch memory.
        scale: Factor on everything (1 / draws for sampled labels).

    Returns:
        Per estimator the scores (B,) in float64, summed over the matrix.
    """
    dtype, device = torch.promote_types(weight.dtype, torch.float32), weight.device
    count, (height, width) = factors.examples, weight.shape
    together, rows_at_once = block_plan(count, height, width, device)
    totals: dict[str, list[Tensor]] = {name: [] for name in estimators}
    scratch = {name for name in estimators if tallies[name].scratch(dtype, device, scale)}
    for rows in _slices(height, rows_at_once):
        shape = (rows.stop - rows.start, width)
        magnitude = torch.abs(weight[rows].to(dtype), out=workspace.take("magnitude", shape, dtype, device))
        sums = {name: workspace.take(f"sums/{name}", shape, dtype, device).zero_() for name in scratch}
        sums |= {n: t.map[rows] for n in estimators if n not in scratch and (t := tallies[n]).map is not None}
        for example in _slices(count, together):
            buffer = workspace.take("gradient", (example.stop - example.start, *shape), dtype, device)
            gradient = factors.block(example, rows, buffer)
            for name, estimator in estimators.items():
                totals[name].append(estimator.totals(gradient, magnitude))
                if name in sums:
                    estimator.add(gradient, sums[name])
        for name in scratch:
            tallies[name].add_entries(rows, sums[name], magnitude, estimators[name], scale)
    return {
        name: torch.cat(parts).view(-1, count).sum(0, dtype=torch.float64) * scale for name, parts in totals.items()
    }


def score_signed_entries(factors: Factors, weight: Tensor, tally: Tally, workspace: Workspace) -> Tensor:
    """Scores ``<W, G_i>`` (B,) where the cheap method for dense layers does not apply: embeddings, vectors, ties."""
    dtype, device = torch.promote_types(weight.dtype, torch.float32), weight.device
    count, (height, width) = factors.examples, weight.shape
    _, rows_at_once = block_plan(1, height, width, device)
    scores = torch.zeros(count, dtype=torch.float64, device=device)
    for i in range(count):
        row_sums, column_sums = [], torch.zeros(width, dtype=dtype, device=device)
        for rows in _slices(height, rows_at_once):
            buffer = workspace.take("gradient", (1, rows.stop - rows.start, width), dtype, device)
            values = factors.block(slice(i, i + 1), rows, buffer)[0].mul_(weight[rows])
            row_sums.append(values.sum(1))
            column_sums += values.sum(0)
        signed = torch.cat(row_sums)
        scores[i] = signed.sum(dtype=torch.float64)
        tally.add_vectors(signed.abs(), column_sums.abs())
    return scores


def score_norms(factors: Factors, tally: Tally, scale: float = 1.0) -> Tensor:
    """Returns squared gradient norms (B,) by Gram matrices, and tallies row and column sums if they are kept."""
    totals, rows, columns = factors.norms(vectors=tally.rows is not None)
    if rows is not None and columns is not None:
        tally.add_vectors(rows, columns, scale)
    return totals * scale


def gram_is_cheaper(factors: Factors, shape: tuple[int, int], vectors: bool) -> bool:
    """Returns whether T(I+O) < IO (twice T with vectors): then Gram matrices need fewer operations.

    Counted in operations; the rule 2T^2 < IO of mixed ghost clipping (Bu et al. 2022, arXiv 2210.00038) counts memory.
    """
    height, width = shape
    return factors.length * (height + width) * (2 if vectors else 1) < height * width


def vector_gradients(module: nn.Module, parameter: str, a: Tensor, b: Tensor, examples: int) -> Tensor:
    """Computes the gradients (B, n) of a small parameter by running its module again for each example.

    Works for any norm. The module's ``forward`` is called directly, so that no tap fires again.

    Args:
        module: The norm.
        parameter: Its name there.
        a: Inputs, examples first; an example may have several rows.
        b: Gradients at the output, likewise.
        examples: Number B.
    """
    original = module._parameters[parameter]
    assert original is not None
    gradients = []
    try:
        with torch.enable_grad():
            for one, at_output in zip(a.chunk(examples), b.chunk(examples), strict=True):
                leaf = original.detach().requires_grad_()
                module._parameters[parameter] = leaf  # type: ignore[assignment]
                output = module.forward(one.detach())
                gradients.append(torch.autograd.grad(output, leaf, at_output)[0])
    finally:
        module._parameters[parameter] = original
    return torch.stack(gradients)


def row_gradients(table: nn.Embedding, ids: Tensor, e: Tensor) -> Tensor:
    """Returns the gradients (B, T, I) of looked-up rows from those at the output; in a subclass they may differ.

    Some families scale what they look up. The module's own ``forward`` is run again on the rows alone, so any formula
    that treats positions independently is exact.

    Args:
        table: The embedding.
        ids: What was looked up (B, T).
        e: Gradients at the output (B, T, I).
    """
    if getattr(table.forward, "__func__", None) is nn.Embedding.forward:
        return e
    original, padding = table._parameters["weight"], table.padding_idx
    places = torch.arange(ids.numel(), device=ids.device).view_as(ids)
    try:
        with torch.enable_grad():
            rows = table.weight.detach()[ids.flatten()].requires_grad_()
            table._parameters["weight"], table.padding_idx = rows, None  # type: ignore[assignment]
            return torch.autograd.grad(table.forward(places), rows, e)[0].view_as(e)
    finally:
        table._parameters["weight"], table.padding_idx = original, padding
