"""From factors to scores: gradients formed block by block, scored while they are in cache, and forgotten."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from .estimators import BlockEstimator
from .factors import Factors

CPU_BLOCK = 1 << 17  # entries: two float32 buffers of this size stay in a core's L2 cache
CUDA_BLOCK = 1 << 26  # entries: large enough to fill the device, 256 MiB a buffer


class Workspace:
    """Scratch memory that lives for one measurement, one flat buffer for each name, type and device."""

    def __init__(self) -> None:
        self._flat: dict[tuple[str, torch.dtype, torch.device], Tensor] = {}

    def take(self, name: str, shape: tuple[int, int, int], dtype: torch.dtype, device: torch.device) -> Tensor:
        """A tensor of ``shape`` with undefined contents; valid until the next call with the same name."""
        size = shape[0] * shape[1] * shape[2]
        flat = self._flat.get((name, dtype, device))
        if flat is None or flat.numel() < size:
            flat = self._flat[(name, dtype, device)] = torch.empty(size, dtype=dtype, device=device)
        return flat[:size].view(shape)


@dataclass
class Tally:
    """Running sums of one estimator at one site.

    Attributes:
        rows: (O,) float64, sum over examples of the row sums (absolute ones for a signed score).
        columns: (I,) float64.
        map: (O, I), sum over examples of every entry's score; ``None`` unless asked for.
        signed: Whether sums keep their sign until they leave an example.
    """

    rows: Tensor | None
    columns: Tensor | None
    map: Tensor | None = None
    signed: bool = False
    pending: Tensor | None = field(default=None, repr=False)

    def add_block(self, rows: slice, row_sums: Tensor, values: Tensor, scale: float) -> None:
        """Adds a block's row sums (n, R) and values (n, R, I)."""
        if self.rows is not None:
            sums = row_sums.abs() if self.signed else row_sums
            self.rows[rows] += sums.sum(0, dtype=torch.float64) * scale
            columns = values.sum(1)
            self.pending = columns if self.pending is None else self.pending + columns
        if self.map is not None:
            total = values[0] if values.shape[0] == 1 else values.sum(0)
            self.map[rows].add_(total.to(self.map.device), alpha=scale)

    def end_examples(self, scale: float) -> None:
        """Closes the column sums of a group of examples once all their rows were seen."""
        if self.columns is not None and self.pending is not None:
            sums = self.pending.abs() if self.signed else self.pending
            self.columns += sums.sum(0, dtype=torch.float64) * scale
        self.pending = None


def block_plan(
    examples: int, rows: int, columns: int, device: torch.device, budget: int | None = None
) -> tuple[int, int]:
    """Examples and rows of a block: one example on the CPU, as many as fit on an accelerator."""
    limit = budget or (CPU_BLOCK if device.type == "cpu" else CUDA_BLOCK)
    together = 1 if device.type == "cpu" else max(1, min(examples, limit // (rows * columns)))
    return together, max(1, min(rows, limit // (together * columns)))


def _slices(total: int, size: int) -> Iterator[slice]:
    for start in range(0, total, size):
        yield slice(start, min(start + size, total))


def score_entries(
    factors: Factors,
    weight: Tensor,
    estimators: Mapping[str, BlockEstimator],
    tallies: MutableMapping[str, Tally],
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
    scores = {name: torch.zeros(count, dtype=torch.float64, device=device) for name in estimators}
    last = list(estimators)[-1]
    for example in _slices(count, together):
        for rows in _slices(height, rows_at_once):
            shape = (example.stop - example.start, rows.stop - rows.start, width)
            gradient = factors.block(example, rows, workspace.take("gradient", shape, dtype, device))
            for name, estimator in estimators.items():  # the last one may overwrite the gradient
                out = gradient if name == last else workspace.take("values", shape, dtype, device)
                values = estimator.values(gradient, weight[rows], out)
                row_sums = values.sum(2)
                scores[name][example] += row_sums.sum(1, dtype=torch.float64) * scale
                tallies[name].add_block(rows, row_sums, values, scale)
        for name in estimators:
            tallies[name].end_examples(scale)
    return scores


def score_norms(factors: Factors, tally: Tally, scale: float = 1.0) -> Tensor:
    """Squared gradient norms (B,) by Gram matrices, with row and column sums if the tally wants them."""
    totals, rows, columns = factors.norms(vectors=tally.rows is not None)
    if tally.rows is not None and tally.columns is not None and rows is not None and columns is not None:
        tally.rows += rows.double() * scale
        tally.columns += columns.double() * scale
    return totals * scale


def gram_is_cheaper(factors: Factors, shape: tuple[int, int], vectors: bool) -> bool:
    """Whether T(I+O) < IO: then Gram matrices need fewer operations than forming the gradients (twice with vectors)."""
    height, width = shape
    return factors.length * (height + width) * (2 if vectors else 1) < height * width


def vector_gradients(module: nn.Module, parameter: str, a: Tensor, b: Tensor) -> Tensor:
    """Per-example gradients (B, n) of a small parameter, by running its module again for each example.

    Works for any formula of a norm. The module's ``forward`` is called directly, so no tap fires again.
    """
    original = module._parameters[parameter]
    assert original is not None
    gradients = []
    try:
        with torch.enable_grad():
            for i in range(a.shape[0]):
                leaf = original.detach().requires_grad_()
                module._parameters[parameter] = leaf  # type: ignore[assignment]
                output = module.forward(a[i : i + 1].detach())
                gradients.append(torch.autograd.grad(output, leaf, b[i : i + 1])[0])
    finally:
        module._parameters[parameter] = original
    return torch.stack(gradients)
