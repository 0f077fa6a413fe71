"""Writes down, at the end of a fit, how far each matrix moved, and whether it moved where it was important."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from typing_extensions import override

from ...foundation.files import replacing
from ...foundation.run_names import IMPORTANCE, WEIGHT_CHANGE, step_name
from ...importance import Snapshot
from ...importance.changes import Changes, MatrixChange
from ...importance.overlap import change_overlap
from ...importance.sites import find_sites
from ..stopping.give_way import taking_turns


class WeightChange(Callback):
    r"""Writes ``weight_change.json`` to the run directory, for which a checkpoint would otherwise be needed.

    For each matrix of the decoder the Frobenius norms of the change and of the weight before, of the effective weight
    under adapters; and, where :class:`ImportanceTracker` measured the untouched model, whether rows and columns that
    were important changed most (:func:`textkeep.importance.overlap.change_overlap`), beside shuffled lines and, under
    LoRA, random adapters of the same rank. ``weight_change/relative`` goes to the loggers:
    :math:`\|\Delta W\|_F / \|W\|_F` over all matrices.

    Args:
        probes: Probes whose importance at the start is compared; default all that were measured.
        estimator: Whose importance; default the first that was measured.
        shuffles: Of the lines, for each matrix and probe.
        draws: Of random adapters, for each matrix and probe.

    Raises:
        ValueError: For numbers below 1.

    Note:
        The untouched LLM is read from disk when the training is over, and freed again; the trained one is not touched.
        Under DDP rank zero does all of it; a stop (Ctrl-C, SIGTERM) comes between two matrices. With SmolLM2-135M a
        probe takes 36 s under LoRA, else 17 s (one CPU core).
    """

    def __init__(
        self, probes: Sequence[str] | None = None, estimator: str | None = None, shuffles: int = 200, draws: int = 20
    ) -> None:
        if min(shuffles, draws) < 1:
            raise ValueError(f"WeightChange: shuffles and draws must be 1 or more, got {shuffles} and {draws}")
        self.probes = None if probes is None else tuple(probes)
        self.estimator = estimator
        self.shuffles, self.draws = shuffles, draws

    def needs_whole(self) -> str | None:
        """Names itself: rank zero alone reads the weights."""
        return type(self).__name__

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        with taking_turns(trainer) as give_way:
            if trainer.is_global_zero:
                found = self.measure(pl_module, trainer.global_step, Path(trainer.default_root_dir), give_way)
        if not trainer.is_global_zero:
            return
        if found is None:
            rank_zero_warn("WeightChange: the LLM's weights are packed; their change is not measured")
            return
        _write(found, Path(trainer.default_root_dir, WEIGHT_CHANGE))
        for logger in trainer.loggers:
            logger.log_metrics({"weight_change/relative": found["relative"]}, step=trainer.global_step)
        rank_zero_info(f"weights moved by {found['relative']:.3g} of their norm; {WEIGHT_CHANGE}")

    @torch.no_grad()
    def measure(
        self, pl_module: LightningModule, step: int, run: Path, give_way: Callable[[], None] | None = None
    ) -> dict[str, Any] | None:
        """Measures the change of the model as it is, against the LLM that it started from.

        Args:
            pl_module: Offers ``llm``, ``tuning`` and ``reference``.
            step: Optimizer step, written down.
            run: The run directory, with the importance of the untouched LLM.
            give_way: Called before each matrix; what it raises ends the measurement.

        Returns:
            Plain values, as they are written; ``None`` where no matrix can be read.
        """
        listener: Any = pl_module
        if not find_sites(listener.llm).sites:
            return None
        if not any(parameter.requires_grad for parameter in listener.llm.parameters()):
            return self._described(Changes(listener.llm, listener.llm, before_each=give_way), step, run)
        listener.reference.release()  # a copy that somebody keeps may have had layers inserted already
        try:
            base = listener.tuning.grow(listener.reference.copy())
            changes = Changes(base, listener.llm, switched_off_too=True, before_each=give_way)
            return self._described(changes, step, run)
        finally:
            listener.reference.release()

    def _described(self, changes: Changes, step: int, run: Path) -> dict[str, Any]:
        norms = changes.norms()
        overlap: dict[str, Any] = {}
        if any(matrix.norm for matrix in norms):
            overlap = {probe: self._overlap(changes, snapshot) for probe, snapshot in self._snapshots(run).items()}
        matrices = [asdict(matrix) for matrix in norms]
        return {"step": step, "relative": _relative(norms), "matrices": matrices, "overlap": overlap}

    def _snapshots(self, run: Path) -> dict[str, Snapshot]:
        """Loads the first measurement of each probe, where that is the untouched model's."""
        folder = run / IMPORTANCE
        names = self.probes or sorted(path.name for path in folder.glob("*/") if path.is_dir())
        found = {}
        for name in names:
            try:
                snapshot = Snapshot.load(folder / name / step_name(0))
                snapshot.lines(self.estimator or snapshot.meta["estimators"][0])
                found[name] = snapshot
            except (OSError, ValueError) as error:
                rank_zero_warn(f"WeightChange: no overlap with the importance of probe {name!r}: {error}")
        return found

    def _overlap(self, changes: Changes, snapshot: Snapshot) -> dict[str, Any]:
        estimator = self.estimator or snapshot.meta["estimators"][0]
        found = change_overlap(
            snapshot, changes, estimator, ranks=changes.ranks(), shuffles=self.shuffles, draws=self.draws
        )
        return {"estimator": estimator, "matrices": [asdict(matrix) for matrix in found]}


def _relative(matrices: Sequence[MatrixChange]) -> float:
    """Divides the norm of all changes by the norm of all weights."""
    change, weight = (sum(getattr(m, side) ** 2 for m in matrices) ** 0.5 for side in ("norm", "base_norm"))
    return float(change / weight) if weight else 0.0


def _write(value: dict[str, Any], path: Path) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value) + "\n", encoding="utf-8")
