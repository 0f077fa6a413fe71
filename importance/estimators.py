"""What the estimators compute, and what each needs from a pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class BlockEstimator(Protocol):
    """A score that needs the entries of each example's gradient."""

    def values(self, gradient: Tensor, weight: Tensor, out: Tensor) -> Tensor:
        """Scores (n, R, I) of a block of gradients (n, R, I) and weights (R, I), written to ``out``."""
        ...


class Taylor:
    """``|theta g_i|``: first-order change of the loss when a weight is removed (Molchanov et al. 2019, 1906.10771)."""

    def values(self, gradient: Tensor, weight: Tensor, out: Tensor) -> Tensor:
        """See :class:`BlockEstimator`."""
        return torch.mul(gradient, weight, out=out).abs_()


class Fisher:
    """``g_i^2``: diagonal of the Fisher information; empirical or true depends on where the labels come from."""

    def values(self, gradient: Tensor, weight: Tensor, out: Tensor) -> Tensor:
        """See :class:`BlockEstimator`."""
        return torch.mul(gradient, gradient, out=out)


class SignedTaylor:
    """``theta g_i``, summed with its sign; used for vectors and embeddings, dense layers have a cheaper way."""

    def values(self, gradient: Tensor, weight: Tensor, out: Tensor) -> Tensor:
        """See :class:`BlockEstimator`."""
        return torch.mul(gradient, weight, out=out)


@dataclass(frozen=True)
class Spec:
    """Facts about an estimator.

    Attributes:
        formula: For tables and error messages.
        block: Scores the entries of per-example gradients.
        backward: Needs a backward pass of the data's loss.
        per_example: Has a score for each example, so bootstrap and permutation are possible.
        signed: Per-example scores keep their sign; a matrix is reported by the mean absolute value.
        maps: Has a value for every single weight.
        source: Where it comes from.
    """

    formula: str
    block: BlockEstimator | None = None
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
        "E_i |<theta, g_i>|", SignedTaylor(), signed=True, maps=False, source="per matrix; SynFlow, arXiv 2006.05467"
    ),
    "taylor_batch": Spec(
        "|theta E_i g_i|", per_example=False, source="Zhang et al. 2024, arXiv 2402.14700 (Linguistic Regions)"
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
