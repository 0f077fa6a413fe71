"""The weights that matter most for text."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from ....importance import ESTIMATORS, ProbeOptions, Snapshot
from ..importance_user import ImportanceRequest, check_origin, read_snapshot
from .weight_mask import WeightMask


class ImportanceMask(WeightMask):
    """The top fraction of single weights by importance: the "core linguistic region" of arXiv 2402.14700.

    There, freezing it in further pre-training preserves the other languages; here it preserves text. Only strategies
    that train the LLM's own weights take a mask: under LoRA they are all frozen anyway, and each entry of the update
    depends on all entries of its factors.

    Args:
        snapshot: Folder of a snapshot with masks (``top_fraction`` of ``ImportanceTracker``, or
            ``textkeep importance probe --top-fraction``).
        probe: Name of a probe of the data module to measure on before the first step, instead of a snapshot.
        estimator: The estimator that ranks the weights; it must score single weights.
        fraction: Fraction of the decoder's matrix entries to protect, in (0, 1).
        scope: What competes: each ``matrix`` alone, the matrices of a ``layer``, or all (``global``).

    Raises:
        ValueError: For settings that contradict each other or lie outside their range.
    """

    def __init__(
        self,
        snapshot: str | None = None,
        probe: str | None = None,
        estimator: str = "taylor",
        fraction: float = 0.05,
        scope: str = "matrix",
    ) -> None:
        super().__init__()
        check_origin("ImportanceMask", snapshot, probe, estimator)
        if not ESTIMATORS[estimator].maps:
            allowed = ", ".join(name for name, spec in ESTIMATORS.items() if spec.maps)
            raise ValueError(f"ImportanceMask: {estimator} scores no single weights; allowed: {allowed}")
        if not 0 < fraction < 1:
            raise ValueError(f"ImportanceMask: fraction is {fraction}, but must lie in (0, 1)")
        options = {"top_fraction": fraction, "top_scope": scope}
        ProbeOptions.of(options)
        self.snapshot = snapshot
        self.estimator = estimator
        self.options = options
        self._request = None if probe is None else ImportanceRequest(probe, estimator, options=options)

    @property
    def request(self) -> ImportanceRequest | None:
        """Requests the measurement on the probe."""
        return self._request

    @property
    def waiting(self) -> bool:
        """Waits until the probe has been measured."""
        return self._request is not None and self._bits is None

    def use(self, snapshot: Snapshot) -> None:
        """Uses the snapshot's mask."""
        self._bits = self._of(snapshot)

    def choose(self, llm: nn.Module) -> dict[str, Tensor]:
        """Reads the snapshot.

        Raises:
            FileNotFoundError: If it is not there.
            ValueError: If it has no such mask.
        """
        return self._of(read_snapshot("ImportanceMask", str(self.snapshot), self.estimator))

    def bits(self, llm: nn.Module) -> dict[str, Tensor]:
        """Returns the mask of the run; a resumed run checks that the snapshot has not changed.

        Raises:
            ValueError: If it has changed.
        """
        resumed = self._bits is not None
        bits = super().bits(llm)
        if resumed and self.snapshot is not None and Path(self.snapshot).exists():
            now = self.choose(llm)
            if now.keys() != bits.keys() or not all(torch.equal(now[name], bits[name]) for name in bits):
                raise ValueError(f"ImportanceMask: the mask in {self.snapshot} is not the one that this run began with")
        return bits

    def _of(self, snapshot: Snapshot) -> dict[str, Tensor]:
        measured = {name: snapshot.meta["options"].get(name) for name in self.options}
        if self.estimator not in snapshot.masks or measured != self.options:
            have = f"{', '.join(snapshot.masks)} with {measured}" if snapshot.masks else "no masks"
            raise ValueError(
                f"ImportanceMask: {self.snapshot or 'the measurement'} has {have}, but {self.estimator} with "
                f"{self.options} is asked for; measure with that top_fraction, or give a probe instead of a snapshot"
            )
        packed = snapshot.masks[self.estimator]
        return {matrix.name: torch.from_numpy(bits) for matrix, bits in zip(snapshot.table, packed, strict=True)}
