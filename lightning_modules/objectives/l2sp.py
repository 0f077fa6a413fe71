"""Keeps all weights near their original values, important ones optionally nearer."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from ...foundation.decoder import clean_name, find_blocks
from ...importance import ESTIMATORS
from .weight_pull import WeightPull, snapshot_strengths


class L2SP(WeightPull):
    """L2-SP (Li et al., arXiv 1802.01483, equation 2): alpha / 2 sum s (theta - theta*)^2.

    In the plain form, s is 1. In the weighted form, s is the importance of each weight in a snapshot with maps, divided
    by the mean over all of them: the pull is on average as strong as the plain one, but stronger on important weights.

    Memory: the untouched LLM, and as much again with a snapshot.

    Args:
        weight: Alpha.
        parameters: ``decoder`` pulls the decoder layers' weights, ``all`` embeddings, final norm and head too. With a
            snapshot, only its matrices are pulled.
        snapshot: Folder of a snapshot with maps; without one, all weights are equal.
        estimator: Whose map is taken.
    """

    name = "l2sp"

    def __init__(
        self,
        weight: float = 1.0,
        parameters: Literal["decoder", "all"] = "all",
        snapshot: str | None = None,
        estimator: str = "taylor",
    ) -> None:
        super().__init__(weight)
        if parameters not in ("decoder", "all"):
            raise ValueError(f"L2SP.parameters: decoder or all is allowed, got {parameters!r}")
        with_maps = [name for name, found in ESTIMATORS.items() if found.maps]
        if estimator not in with_maps:
            raise ValueError(f"L2SP.estimator: {', '.join(with_maps)} are allowed, got {estimator!r}")
        self.parameters_pulled = parameters
        self.snapshot = None if snapshot is None else Path(snapshot)
        self.estimator = estimator

    def strengths(self, llm: nn.Module) -> dict[str, Tensor | None]:
        """Returns 1 everywhere, or the importance over its mean."""
        if self.snapshot is None:
            prefix = f"{clean_name(find_blocks(llm)[0])}." if self.parameters_pulled == "decoder" else ""
            names = [clean_name(name) for name, _ in llm.named_parameters()]
            return {name: None for name in names if name.startswith(prefix)}
        maps = snapshot_strengths("L2SP", self.snapshot, self.estimator, llm)
        mean = sum(float(m.double().sum()) for m in maps.values()) / sum(m.numel() for m in maps.values())
        if mean <= 0:
            raise ValueError(f"L2SP.snapshot: {self.snapshot}: the {self.estimator} scores are all zero")
        return {name: entries / mean for name, entries in maps.items()}
