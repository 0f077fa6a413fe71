"""Follows a model in any training loop: the same snapshots and summary as a run of TextKeep's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor, nn

from ...foundation.errors import UserError
from ...foundation.ranks import Ranks
from ...foundation.run_names import IMPORTANCE, SUMMARY
from ...importance import DEFAULT_ESTIMATORS, NotFiniteError, ProbeOptions, probe
from ...importance.estimators import checked
from ...importance.summary import SummaryFile
from .probing import IGNORED
from .shift_history import ShiftHistory, headline, write_lines

Batches = Sequence[Mapping[str, Any]]
"""Of a probe: ``input_ids``, ``attention_mask`` and ``labels`` (B, T), -100 = not supervised; and ``ids``."""


class ImportanceTrack:
    """Measures a model's importance on request, into a directory that ``textkeep report`` reads.

    Args:
        model: A causal LM; peft's, DDP's and ``torch.compile``'s wrappers may be around it.
        probes: Name -> batches, the same on every rank, which share them out. ``textkeep.inference.text_probes`` makes
            them of sets of texts.
        run: The directory.
        estimators: What to measure, from one pass.
        replicates: Behind the intervals of the shift; see :class:`ImportanceTracker`.
        **options: Fields of :class:`textkeep.importance.ProbeOptions`.

    Raises:
        UserError: If there is no probe.
        ValueError: If an option cannot be.
    """

    def __init__(
        self,
        model: nn.Module,
        probes: Mapping[str, Batches],
        run: str | Path,
        estimators: Sequence[str] = DEFAULT_ESTIMATORS,
        replicates: int = 1000,
        **options: Any,
    ) -> None:
        check_settings(probes, estimators, options)
        self.model = model
        self.probes = {name: list(batches) for name, batches in probes.items()}
        self.run = Path(run)
        self.estimators = checked(estimators)
        self._options = options
        self._ranks = Ranks()
        self._history = ShiftHistory(self.estimators, replicates)
        self._measured: set[str] = set()

    def go_on(self, step: int) -> None:
        """Begins, or continues what the directory holds up to this step; call it once, before the first measurement.

        Args:
            step: Optimizer steps so far; 0 begins.

        Raises:
            UserError: If a new beginning would remove the measurements of another run.
        """
        lines = SummaryFile(self.run / IMPORTANCE / SUMMARY).read()
        if step == 0 and lines:
            raise UserError(
                f"{self.run} holds measurements of another run; allowed: a directory of its own, or going on from a "
                "checkpoint"
            )
        for line in (line for line in lines if line["step"] <= step):
            self._measured.add(line["probe"])
            self._history.note(line["step"], [line])
        if self._ranks.rank == 0:
            self._history.go_on(self.run, step)

    def measure(self, step: int) -> dict[str, float]:
        """Measures all probes with the weights as they are; training continues bit-identically.

        Args:
            step: Optimizer steps so far.

        Returns:
            The figures by metric key (``importance/<probe>/...``) on rank zero; empty on the others.

        Raises:
            NotFiniteError: If the first measurement of a probe is not finite; later ones are left out with a warning.
        """
        lines: list[dict[str, Any]] = []
        for name, batches in self.probes.items():
            try:
                options = {"step": step, "name": name, **self._options}
                snapshot = probe(self.model, self._own(batches), self.estimators, **options)
            except NotFiniteError as error:  # on every rank alike
                if name not in self._measured:
                    raise
                rank_zero_warn(f"{error}; step {step} has no measurement of this probe")
                continue
            self._measured.add(name)
            if self._ranks.rank == 0:
                lines += self._history.keep(self.run, snapshot, _is_plain(batches))
        if lines:
            write_lines(self.run, lines)
            rank_zero_info(headline(step, lines))
        return self._history.note(step, lines)

    def _own(self, batches: Batches) -> Iterator[dict[str, Any]]:
        """Yields this rank's part of a probe, on the model's device."""
        device = next(self.model.parameters()).device
        for batch in batches[self._ranks.rank :: self._ranks.size]:
            yield {key: value.to(device) if isinstance(value, Tensor) else value for key, value in batch.items()}


def check_settings(probes: Mapping[str, Batches], estimators: Sequence[str], options: Mapping[str, Any]) -> None:
    """Refuses what cannot be measured now, rather than at the first measurement.

    Raises:
        UserError: If there is no probe, or one without batches.
        ValueError: If an estimator or option cannot be.
    """
    if not probes or not all(probes.values()):
        raise UserError(
            "importance: a probe is missing; allowed: names, each with its batches (text_probes makes them)"
        )
    checked(estimators, "importance: estimators")
    ProbeOptions.of(options)


def _is_plain(batches: Batches) -> bool:
    """Returns whether a probe is plain text: every token but the first is predicted."""
    return all(
        bool(((batch["labels"] != IGNORED).sum(dim=1) == batch["attention_mask"].sum(dim=1) - 1).all())
        for batch in batches
    )
