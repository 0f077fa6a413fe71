"""What the estimators compute, and what each needs from a pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Finish(Protocol):
    """The part of a score that is done once for all examples."""

    def finish(self, sums: Tensor, magnitude: Tensor) -> Tensor:
        """Scores (R, I) from what was summed over the examples, in place.

        Args:
            sums: (R, I).
            magnitude: Absolute weights (R, I).
        """
        ...


class BlockEstimator(Finish, Protocol):
    """A score that needs the entries of each example's gradient.

    It is split so that little is done per example: the entry's score is (what :meth:`add` sums) x (what :meth:`finish`
    multiplies), and the multiplication is done once for all examples.
    """

    def totals(self, gradient: Tensor, magnitude: Tensor) -> Tensor:
        """Score of each example (n,) summed over a block.

        Args:
            gradient: (n, R, I); may be replaced by its absolute value.
            magnitude: Absolute weights (R, I).
        """
        ...

    def add(self, gradient: Tensor, sums: Tensor) -> None:
        """Adds the examples' contributions of a block (n, R, I) to ``sums`` (R, I); called after :meth:`totals`."""
        ...


class Taylor:
    """``|theta g_i|``: first-order change of the loss when a weight is removed.

    The first-order score of Molchanov et al. 2019 (arXiv 1906.10771), per weight and without the square.
    """

    def totals(self, gradient: Tensor, magnitude: Tensor) -> Tensor:
        """See :class:`BlockEstimator`."""
        return torch.mv(gradient.abs_().flatten(1), magnitude.flatten())

    def add(self, gradient: Tensor, sums: Tensor) -> None:
        """See :class:`BlockEstimator`."""
        for one in gradient:
            sums.add_(one)

    def finish(self, sums: Tensor, magnitude: Tensor) -> Tensor:
        """See :class:`Finish`."""
        return sums.mul_(magnitude)


class Fisher:
    """``g_i^2``: diagonal of the Fisher information; empirical or true depends on where the labels come from.

    ``g_i`` is the gradient of the example's mean loss over its T_i answer tokens, so this is the Fisher information of
    its summed log-likelihood over T_i^2: it falls, about like 1 / T_i, as answers grow longer.

    Kunstner et al. 2019 (arXiv 1905.12558) on the difference; van de Ven 2025 (arXiv 2502.11756) on why the square is
    taken per example.
    """

    def totals(self, gradient: Tensor, magnitude: Tensor) -> Tensor:
        """See :class:`BlockEstimator`."""
        flat = gradient.flatten(1)
        return torch.dot(flat[0], flat[0]).unsqueeze(0) if len(flat) == 1 else flat.square().sum(1)

    def add(self, gradient: Tensor, sums: Tensor) -> None:
        """See :class:`BlockEstimator`."""
        for one in gradient:
            sums.addcmul_(one, one)

    def finish(self, sums: Tensor, magnitude: Tensor) -> Tensor:
        """See :class:`Finish`."""
        return sums


class TaylorBatch:
    """``|theta sum_i g_i|``: the sum of the gradients is all that is kept, so opposite examples cancel.

    Zhang et al. 2024 (Linguistic Regions, arXiv 2402.14700).
    """

    def finish(self, sums: Tensor, magnitude: Tensor) -> Tensor:
        """See :class:`Finish`."""
        return sums.abs_().mul_(magnitude)


@dataclass(frozen=True)
class Spec:
    """Facts about an estimator.

    Attributes:
        formula: For tables and error messages.
        block: How the entries of per-example gradients are scored; ``None`` for scores that need none.
        batch: How the sum of all gradients is scored.
        backward: Needs a backward pass of the data's loss.
        per_example: Has a score for each example, so bootstrap and permutation are possible.
        signed: Per-example scores keep their sign; a matrix is reported by the mean absolute value.
        maps: Has a value for every single weight.
        source: Where it comes from.
    """

    formula: str
    block: BlockEstimator | None = None
    batch: Finish | None = None
    backward: bool = True
    per_example: bool = True
    signed: bool = False
    maps: bool = True
    source: str = ""


ESTIMATORS: dict[str, Spec] = {
    "taylor": Spec("E_i |theta g_i|", Taylor(), source="Molchanov et al. 2019, arXiv 1906.10771"),
    "fisher": Spec("E_i g_i^2", Fisher(), source="empirical Fisher; Kunstner et al. 2019, arXiv 1905.12558"),
    "fisher_sampled": Spec(
        "E_i E_y~p g_i(y)^2", Fisher(), backward=False, source="true Fisher by label draws; van de Ven, 2502.11756"
    ),
    "signed_taylor": Spec(
        "E_i |<theta, g_i>|", signed=True, maps=False, source="per matrix; SynFlow, arXiv 2006.05467"
    ),
    "taylor_batch": Spec(
        "|theta E_i g_i|",
        batch=TaylorBatch(),
        per_example=False,
        source="Zhang et al. 2024, arXiv 2402.14700 (Linguistic Regions)",
    ),
    "wanda": Spec("|theta| (E_i |a_i|^2)^1/2", backward=False, per_example=False, source="Sun et al. 2023, 2306.11695"),
    "magnitude": Spec("|theta|", backward=False, per_example=False),
}
DEFAULT_ESTIMATORS = ("taylor", "fisher", "signed_taylor")


def checked(estimators: Sequence[str] | str) -> tuple[str, ...]:
    """The estimators' names, each once, in the order given.

    Raises:
        ValueError: For an unknown name or an empty list.
    """
    names = (estimators,) if isinstance(estimators, str) else tuple(dict.fromkeys(estimators))
    unknown = [name for name in names if name not in ESTIMATORS]
    if unknown or not names:
        given = ", ".join(unknown) or "nothing"
        raise ValueError(f"importance: unknown estimator {given}; allowed: {', '.join(ESTIMATORS)}")
    return names
