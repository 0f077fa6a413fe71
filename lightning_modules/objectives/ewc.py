"""Keeps weights that matter for text near their original values."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from .weight_pull import WeightPull, snapshot_strengths


class EWC(WeightPull):
    """Elastic weight consolidation: lambda / 2 sum F (theta - theta*)^2 (Kirkpatrick et al., arXiv 1612.00796, eq. 3).

    F is the diagonal of the Fisher information of the untouched LLM on text, exact per example, from a snapshot with
    maps: ``textkeep importance probe LLM --data TEXT --estimators fisher --maps -o FOLDER``. It covers the decoder's
    matrices, and embeddings or norms if the snapshot includes them; other weights are free. The values are small (a
    squared gradient of one weight), so lambda is large: compare ``train/ewc`` times lambda with ``train/answer_ce``.

    F is the mean square of the gradient of an example's *mean* loss over its T answer tokens, not of its summed
    log-likelihood as in the paper: theirs divided by T^2. Theirs grows with the number of terms, so this one falls like
    1 / T (exactly so for ``fisher_sampled``, whose terms are uncorrelated, if all tokens are alike). A lambda suits one
    answer length: text with answers four times as long needs about four times the lambda for the same pull.

    Memory: F in float32 and the untouched LLM, both as large as the LLM.

    Args:
        snapshot: Folder of the snapshot; read at the start of a fit.
        weight: Lambda.
        estimator: ``fisher``, or ``fisher_sampled`` (labels drawn from the model).
    """

    name = "ewc"

    def __init__(self, snapshot: str, weight: float = 10000.0, estimator: str = "fisher") -> None:
        super().__init__(weight)
        if estimator not in ("fisher", "fisher_sampled"):
            raise ValueError(
                f"EWC.estimator: fisher or fisher_sampled is allowed, got {estimator!r} (L2SP takes any importance)"
            )
        self.snapshot = Path(snapshot)
        self.estimator = estimator

    def strengths(self, llm: nn.Module) -> dict[str, Tensor | None]:
        """Returns the Fisher information F of each weight."""
        return {**snapshot_strengths("EWC", self.snapshot, self.estimator, llm)}
