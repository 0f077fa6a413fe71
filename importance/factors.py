r"""Per-example gradients in factored form: ``G_i = B_i^T A_i`` with few rows T, never stored for all examples at once.

For a dense layer ``y = W a`` the gradient of example i is ``sum_t b_t a_t^T`` with ``b`` the gradient at the output
(Goodfellow 2015, arXiv 1510.01799). An embedding is the same with one-hot rows, a shared embedding the two stacked,
which gives the cross term of tied weights without another formula.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Factors(Protocol):
    """What the kernels need from the gradients of B examples with respect to one (O, I) weight."""

    @property
    def examples(self) -> int:
        """Number of examples B."""
        ...

    @property
    def length(self) -> int:
        """Rows T of an example's factors."""
        ...

    def block(self, example: slice, rows: slice, out: Tensor) -> Tensor:
        """Writes rows of ``G_i`` of some examples to ``out`` (n, R, I) and returns it."""
        ...

    def total(self, out: Tensor) -> None:
        """Adds ``sum_i G_i`` to ``out`` (O, I)."""
        ...

    def norms(self, vectors: bool) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Returns squared norms by Gram matrices: (B,) and, if asked, rows (O,) and columns (I,) over all examples."""
        ...


@dataclass
class DenseFactors:
    """Gradients of a dense layer.

    Attributes:
        a: Inputs (B, T, I).
        b: Gradients at the output (B, T, O), in the same dtype; zero where a position does not matter.
        spans: First and last + 1 position of each example that can matter, to save work on padding.
    """

    a: Tensor
    b: Tensor
    spans: list[tuple[int, int]] | None = None

    @property
    def examples(self) -> int:
        """Number of examples."""
        return self.a.shape[0]

    @property
    def length(self) -> int:
        """Positions of an example."""
        return self.a.shape[1]

    def block(self, example: slice, rows: slice, out: Tensor) -> Tensor:
        """Multiplies the factors, for one example without its padding."""
        b, a = self.b[example, :, rows].transpose(1, 2), self.a[example]
        if a.dtype != out.dtype and a.is_cuda:  # half-precision operands, float32 sum and result
            return torch.bmm(b, a, out_dtype=out.dtype)
        if a.shape[0] == 1:
            start, stop = self.spans[example.start] if self.spans else (0, self.length)
            left, right = b[0, :, start:stop].to(out.dtype), a[0, start:stop].to(out.dtype)
            return torch.mm(left, right, out=out[0]).unsqueeze(0)
        return torch.bmm(b.to(out.dtype), a.to(out.dtype), out=out)

    def total(self, out: Tensor) -> None:
        """Adds the product over all positions of all examples."""
        b, a = self.b.flatten(0, 1).T, self.a.flatten(0, 1)
        if a.dtype != out.dtype and a.is_cuda and out.is_cuda:
            out += torch.mm(b, a, out_dtype=out.dtype)
        else:
            out.addmm_(b.to(out), a.to(out))

    def norms(self, vectors: bool) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Computes ``|G|^2 = sum_ts (a_t.a_s)(b_t.b_s)``, the "ghost norm" of Li et al. 2021 (2110.05679)."""
        dtype = torch.promote_types(self.a.dtype, torch.float32)
        a, b = self.a.to(dtype), self.b.to(dtype)
        gram_a = a @ a.transpose(1, 2)
        gram_b = b @ b.transpose(1, 2)
        totals = (gram_a * gram_b).sum((1, 2), dtype=torch.float64)
        if not vectors:
            return totals, None, None
        rows = ((gram_a @ b) * b).sum((0, 1))
        columns = ((gram_b @ a) * a).sum((0, 1))
        return totals, rows, columns


@dataclass
class EmbeddingFactors:
    """Gradients of an embedding, alone or tied to an output head.

    Attributes:
        ids: Token ids (B, T).
        e: Gradients at the embedding's output (B, T, I); zero at ``padding_idx``.
        rows: Size O of the vocabulary.
        head: The factors of the tied output head.
    """

    ids: Tensor
    e: Tensor
    rows: int
    head: DenseFactors | None = None

    @property
    def examples(self) -> int:
        """Number of examples."""
        return self.ids.shape[0]

    @property
    def length(self) -> int:
        """Rows of the stacked factors of an example."""
        return self.ids.shape[1] + (self.head.length if self.head else 0)

    def block(self, example: slice, rows: slice, out: Tensor) -> Tensor:
        """Adds the looked-up rows inside ``rows`` to the head's part, or to zeros."""
        out = self.head.block(example, rows, out) if self.head else out.zero_()
        for index, i in enumerate(range(*example.indices(self.examples))):
            inside = (self.ids[i] >= rows.start) & (self.ids[i] < rows.stop)
            out[index].index_add_(0, self.ids[i][inside] - rows.start, self.e[i][inside].to(out.dtype))
        return out

    def total(self, out: Tensor) -> None:
        """Adds the looked-up rows of all examples, and the head's part."""
        if self.head:
            self.head.total(out)
        out.index_add_(0, self.ids.flatten().to(out.device), self.e.flatten(0, 1).to(out))

    def norms(self, vectors: bool) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Computes the Gram matrices of the stacked factors; one-hot rows are never formed."""
        dtype = torch.promote_types(self.e.dtype, torch.float32)
        a, e = self.e.to(dtype), self.e.to(dtype)
        gram_b = (self.ids[:, :, None] == self.ids[:, None, :]).to(dtype)
        if self.head:
            a = torch.cat([self.head.a.to(dtype), e], dim=1)
            b = self.head.b.to(dtype)
            cross = b.gather(2, self.ids[:, None, :].expand(-1, b.shape[1], -1))  # b_s at the tokens of the input
            top = torch.cat([b @ b.transpose(1, 2), cross], dim=2)
            gram_b = torch.cat([top, torch.cat([cross.transpose(1, 2), gram_b], dim=2)], dim=1)
        gram_a = a @ a.transpose(1, 2)
        totals = (gram_a * gram_b).sum((1, 2), dtype=torch.float64)
        if not vectors:
            return totals, None, None
        return totals, self._row_norms(gram_a, dtype), ((gram_b @ a) * a).sum((0, 1))

    def _row_norms(self, gram_a: Tensor, dtype: torch.dtype) -> Tensor:
        """Sums rows of the squared gradient: ``sum_ts K_a[t,s] b~_t b~_s``, with the one-hot rows in place."""
        split = self.head.length if self.head else 0
        rows = torch.zeros(self.rows, dtype=dtype, device=self.e.device)
        same = self.ids[:, :, None] == self.ids[:, None, :]
        rows.index_add_(0, self.ids.flatten(), (gram_a[:, split:, split:] * same).sum(2).flatten())
        if self.head:
            b = self.head.b.to(dtype)
            rows += ((gram_a[:, :split, :split] @ b) * b).sum((0, 1))
            cross = b.gather(2, self.ids[:, None, :].expand(-1, split, -1))
            rows.index_add_(0, self.ids.flatten(), (2 * gram_a[:, :split, split:] * cross).sum(1).flatten())
        return rows


@dataclass
class VectorFactors:
    """Gradients of a vector such as a norm's weight, small enough to be kept.

    Attributes:
        g: (B, n), seen as a matrix of one row.
    """

    g: Tensor

    @property
    def examples(self) -> int:
        """Number of examples."""
        return self.g.shape[0]

    @property
    def length(self) -> int:
        """One: a vector's gradient is its own factor."""
        return 1

    def block(self, example: slice, rows: slice, out: Tensor) -> Tensor:
        """Copies the gradients."""
        return out.copy_(self.g[example].unsqueeze(1))

    def total(self, out: Tensor) -> None:
        """Adds the gradients of all examples."""
        out += self.g.sum(0, keepdim=True).to(out)

    def norms(self, vectors: bool) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Squares the gradients."""
        square = self.g.double().square()
        return square.sum(1), square.sum().reshape(1) if vectors else None, square.sum(0) if vectors else None


def together(uses: Sequence[DenseFactors | VectorFactors]) -> Factors:
    """Joins the factors of a weight that is used several times: ``sum_k B_ik^T A_ik`` is one longer product."""
    dense = [use for use in uses if isinstance(use, DenseFactors)]
    if dense:
        return DenseFactors(torch.cat([use.a for use in dense], dim=1), torch.cat([use.b for use in dense], dim=1))
    return VectorFactors(torch.stack([use.g for use in uses if isinstance(use, VectorFactors)]).sum(0))
