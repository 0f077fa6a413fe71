"""The definition of an estimator: how it scores, and what it therefore needs from a measurement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

from torch import Tensor


class Finish(Protocol):
    """The part of a score that is done once for all examples."""

    def finish(self, sums: Tensor, magnitude: Tensor) -> Tensor:
        """Returns the scores (R, I) from the sums over the examples; may work in place.

        Args:
            sums: (R, I).
            magnitude: Absolute weights (R, I).
        """
        ...


class BlockScore(Finish, Protocol):
    """A score that needs the entries of each example's gradient, in blocks of whole rows.

    It is split so that little work is done per example: the entry's score is (what :meth:`add` sums) x (what
    :meth:`finish` multiplies), and the multiplication is done once for all examples. It may depend on the absolute
    value of the gradient alone: estimators measured together see the same block one after another.
    """

    def totals(self, gradient: Tensor, magnitude: Tensor) -> Tensor:
        """Returns the score (n,) of each example, summed over a block.

        Args:
            gradient: (n, R, I); may be replaced by its absolute value, but not changed otherwise.
            magnitude: Absolute weights (R, I).
        """
        ...

    def add(self, gradient: Tensor, sums: Tensor) -> None:
        """Adds the examples' contributions of a block (n, R, I) to ``sums`` (R, I); called after :meth:`totals`."""
        ...


class ForwardScore(Protocol):
    """A score that needs no gradient, only the weights and the size of their inputs."""

    def entries(self, weight: Tensor, norms: Tensor | None) -> Tensor:
        """Returns the score of every weight (O, I), none of them negative.

        Args:
            weight: (O, I), at least float32; not to be changed.
            norms: ``(E_i |a_i|^2)^1/2`` of each input (I,), the norm over the positions of example i, in the weight's
                type; ``None`` unless the estimator asks for ``input_norms``.
        """
        ...


@dataclass(frozen=True)
class Spec:
    """An estimator: how it scores, and what it therefore needs from a measurement.

    Exactly one of ``block``, ``batch``, ``forward``, ``signed`` and ``ablated`` must be given.

    Attributes:
        formula: For tables and error messages.
        block: Scores the entries of each example's gradient.
        batch: Scores the entries of the sum of all gradients; the result is divided by the number of examples.
        forward: Scores the weights without any gradient.
        signed: Scores whole matrices by ``<theta, g_i>``. The sign is kept per example, and a matrix is reported by the
            mean absolute value.
        ablated: Scores groups (layers, matrices or heads) by the change of the loss when they are removed. The sign
            is kept per example, and a group is reported by the positive part of the mean.
        labels: Whose loss is differentiated: that of the labels in the ``data``, or of labels ``sampled`` from the
            model's prediction (``draws`` times, block scores alone).
        squared_norm: A block score whose total is the gradient's squared norm (and ``finish`` does nothing): Gram
            matrices may compute it without the entries where that is cheaper.
        input_norms: A forward score that needs the norms of the inputs.
        source: Where it comes from.

    Raises:
        ValueError: If the fields contradict each other.
    """

    formula: str
    block: BlockScore | None = None
    batch: Finish | None = None
    forward: ForwardScore | None = None
    signed: bool = False
    ablated: bool = False
    labels: Literal["data", "sampled"] = "data"
    squared_norm: bool = False
    input_norms: bool = False
    source: str = ""

    def __post_init__(self) -> None:
        ways = [self.block is not None, self.batch is not None, self.forward is not None, self.signed, self.ablated]
        if sum(ways) != 1:
            raise ValueError(
                f"importance: {self.formula}: give one of block, batch, forward, signed and ablated, not {sum(ways)}"
            )
        if self.labels not in ("data", "sampled"):
            raise ValueError(f"importance: {self.formula}: labels={self.labels!r}; allowed: data, sampled")
        if self.block is None and (self.labels == "sampled" or self.squared_norm):
            raise ValueError(f"importance: {self.formula}: sampled labels and squared_norm are for block scores")
        if self.forward is None and self.input_norms:
            raise ValueError(f"importance: {self.formula}: input_norms is for forward scores")

    @property
    def gradients(self) -> bool:
        """Whether it needs a backward pass."""
        return self.forward is None and not self.ablated

    @property
    def sampled(self) -> bool:
        """Whether its backward passes are those of sampled labels."""
        return self.labels == "sampled"

    @property
    def finish(self) -> Finish | None:
        """How sums of gradient entries are finished; ``None`` if it needs no entries of gradients."""
        return self.block or self.batch

    @property
    def per_example(self) -> bool:
        """Whether it has a score for each example, so that bootstrap and permutation are possible."""
        return self.block is not None or self.signed or self.ablated

    @property
    def maps(self) -> bool:
        """Whether it has a value for every single weight."""
        return not (self.signed or self.ablated)

    @property
    def options(self) -> tuple[str, ...]:
        """Settings of a probe that change the scores of this estimator but not of all."""
        if self.ablated:
            return ("ablate", "ablate_with")
        return ("draws", "seed") if self.sampled else ()

    def facts(self) -> dict[str, Any]:
        """Returns what a reader of its scores must know, as JSON."""
        return {
            "formula": self.formula,
            "signed": self.signed,
            "ablated": self.ablated,
            "options": list(self.options),
        }
