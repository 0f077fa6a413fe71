"""Settings of a measurement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch

from .estimators import Spec, checked
from .masks import SCOPES
from .targets import ABLATED, ABLATED_WITH


@dataclass(frozen=True)
class ProbeOptions:
    """Settings of a measurement; all but the last five change the numbers and must agree in a comparison.

    Attributes:
        include: ``"embeddings"`` and / or ``"norms"``, in addition to the matrices of the decoder blocks.
        vectors: Keep row and column sums.
        draws: Label draws of estimators with sampled labels (``fisher_sampled``).
        seed: Of those draws; each example has its own stream.
        ablate: What ``ablation`` removes: each ``layer``, ``matrix`` of the decoder blocks, or attention ``head``.
        ablate_with: What replaces it: ``zero``, or the ``mean`` of its output at the probe's content tokens.
        autocast: Compute type of the forward pass, ``None`` for the weights' own.
        top_fraction: Keep a mask of the top fraction of single weights.
        top_scope: What competes: ``matrix``, ``layer`` or ``global``.
        keep_maps: Estimators whose score of every single weight is kept (as much memory as the weights in float32).
        maps_on_cpu: Keep those on the CPU.
        reuse_blocks: Where a trial shows that it changes no bit, ``ablation`` runs only the blocks from a group's own
            on; false always runs the whole model for each group.
        pack: ``ablation`` runs what a batch's examples begin with once (:mod:`~textkeep.importance.packing`), if a
            trial shows the same losses but for rounding; it saves most where questions are short.
        self_test: Check the conservation identities: on all examples with a signed estimator, else on the first batch,
            where that costs about one per cent of the pass. If one does not hold, autograd on one example decides
            between a warning and an error. Without a backward pass there is nothing to check.
        distributed: Share the examples with the other ranks of the process group, if there is one.
    """

    include: tuple[str, ...] = ()
    vectors: bool = True
    draws: int = 4
    seed: int = 0
    ablate: str = "layer"
    ablate_with: str = "zero"
    autocast: torch.dtype | None = None
    top_fraction: float | None = None
    top_scope: str = "matrix"
    keep_maps: tuple[str, ...] = ()
    maps_on_cpu: bool = False
    reuse_blocks: bool = True
    pack: bool = False
    self_test: bool = True
    distributed: bool = True

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise ValueError(f"importance: draws={self.draws} must be at least 1")
        if self.top_fraction is not None and not 0 < self.top_fraction <= 1:
            raise ValueError(f"importance: top_fraction={self.top_fraction} must lie in (0, 1]")
        if self.top_scope not in SCOPES:
            raise ValueError(f"importance: top_scope={self.top_scope!r} is unknown; allowed: {', '.join(SCOPES)}")
        if self.ablate not in ABLATED:
            raise ValueError(f"importance: ablate={self.ablate!r} is unknown; allowed: {', '.join(ABLATED)}")
        if self.ablate_with not in ABLATED_WITH:
            raise ValueError(f"importance: ablate_with={self.ablate_with!r} is unknown; allowed: zero, mean")
        if self.keep_maps:
            object.__setattr__(self, "keep_maps", checked(self.keep_maps, "importance: keep_maps"))

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> ProbeOptions:
        """Makes options from keyword arguments; lists become tuples.

        Raises:
            ValueError: For an unknown option or a value that is not allowed.
        """
        names = [f.name for f in fields(cls)]
        unknown = sorted(set(given) - set(names))
        if unknown:
            raise ValueError(f"importance: unknown option {', '.join(unknown)}; allowed: {', '.join(names)}")
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list | set) else v for k, v in given.items()}
        return cls(**values)

    def check(self, specs: Mapping[str, Spec]) -> None:
        """Refuses estimators that cannot be measured with these options or with each other.

        Args:
            specs: By name.

        Raises:
            ValueError: Naming them.
        """
        signed = [name for name, spec in specs.items() if spec.signed]
        if len(signed) > 1:
            raise ValueError(f"importance: {' and '.join(signed)} both score signs; measure them one after the other")
        ablated = [name for name, spec in specs.items() if spec.ablated]
        if len(ablated) > 1:
            raise ValueError(f"importance: {' and '.join(ablated)} are the same measurement; leave one out")
        inputs = [name for name, spec in specs.items() if spec.input_norms]
        if inputs and self.include:
            raise ValueError(f"importance: {inputs[0]} scores the inputs of Linear layers; leave include empty")

    def recorded(self) -> dict[str, Any]:
        """Lists the options that change the numbers, as JSON."""
        without = ("maps_on_cpu", "reuse_blocks", "pack", "self_test", "distributed")
        values = {k: v for k, v in asdict(self).items() if k not in without}
        return {**values, "autocast": str(self.autocast) if self.autocast else None}
