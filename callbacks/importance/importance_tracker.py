"""Follows where the text knowledge of the LLM lives while it learns to listen."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from typing_extensions import override

from ...importance import DEFAULT_ESTIMATORS, NotFiniteError, ProbeOptions, Snapshot
from ...importance.estimators import checked
from ..contract import Batch
from ..stopping.agreed_stop import AgreedStop
from .heat_maps import HeatMaps
from .probing import acting_weights, is_plain, measure_probe
from .shift_history import ShiftHistory, headline, write_lines
from .snapshot_memory import SnapshotMemory


class ImportanceTracker(Callback):
    r"""Measures the importance of the LLM's weights on fixed probes, before step 0, at checkpoints and at the end.

    Each measurement becomes a snapshot ``importance/<probe>/step=000120/`` in the run directory and a line an
    estimator in ``importance/summary.jsonl``. Layer shares, totals and the shift against step 0 go to every logger at
    ``trainer.global_step``, with the loss on the probe beside them: importance on fitted items falls by itself.

    Args:
        probes: Names of probes of the data module; default all that it defines.
        estimators: What to measure, from one pass: names in :data:`textkeep.importance.ESTIMATORS`. One of your own is
            ``my_scores:cubic``: the module ``my_scores`` is imported and registers ``cubic``.
        every_n_steps: Optimizer steps between two measurements beside those at checkpoints; 0 for none.
        at_checkpoints: Measure the weights of every checkpoint.
        at_start: Measure the untouched model: the reference of the shift.
        at_end: Measure the final weights.
        replicates: Bootstrap samples and half splits behind the intervals of the shift; 0 for none, and no paired test.
        max_heat_maps: Pictures a probe of the layer shares so far; they become rarer in long runs. 0 for none.
        top_fraction: Also keep a mask of this top fraction of the single weights (more memory: a float32 map).
        vectors: Keep row and column sums. They are nearly all of a snapshot: at 8B, three probes and a hundred
            checkpoints make 9.5 GB with them and under 0.1 GB without. Structure, overlap and heads need them.
        ablate: What the estimator ``ablation`` removes, one after another: each ``layer``, ``matrix`` or attention
            ``head``. A group costs about 0.6 of a forward pass of the probe; there are far more matrices and heads.
        ablate_with: What replaces it: ``zero``, or the ``mean`` of its output over the probe.
        untouched_cache: Folder in which the untouched LLM's snapshots are kept: another run that begins with the same
            LLM, ear and probes takes them from there, to the bit. One process; it may be that of ``Retention``.
        self_test: Hold the scores of every measurement against identities that they must obey, and against autograd
            where those do not hold. Switch it off only if it stops a run.

    Note:
        It only decides when. The pass runs on the bare LLM with its weights frozen, in eval mode; gradients, random
        states and modes are put back, so a run with this callback is bit-identical to a run without it. A checkpoint
        saved during validation is measured in the next training hook, where its weights are still in place. The
        examples of a probe are divided among the ranks, each of which holds the whole model in the meantime
        (``FSDP2``).
    """

    def __init__(
        self,
        probes: Sequence[str] | None = None,
        estimators: Sequence[str] = DEFAULT_ESTIMATORS,
        every_n_steps: int = 0,
        at_checkpoints: bool = True,
        at_start: bool = True,
        at_end: bool = True,
        replicates: int = 1000,
        top_fraction: float | None = None,
        max_heat_maps: int = 80,
        vectors: bool = True,
        self_test: bool = True,
        ablate: str = "layer",
        ablate_with: str = "zero",
        untouched_cache: str | None = None,
    ) -> None:
        if min(every_n_steps, replicates, max_heat_maps) < 0:
            raise ValueError("ImportanceTracker: every_n_steps, replicates and max_heat_maps must be 0 or more")
        self.probes = None if probes is None else tuple(probes)
        self.estimators = checked(estimators, "ImportanceTracker.estimators")
        self.every_n_steps = every_n_steps
        self.at_checkpoints = at_checkpoints
        self.at_start = at_start
        self.at_end = at_end
        self.untouched_cache = untouched_cache
        self._history = ShiftHistory(self.estimators, replicates)
        self._heat_maps = HeatMaps(max_heat_maps)
        kept = {"top_fraction": top_fraction, "vectors": vectors, "self_test": self_test}
        self.options: dict[str, Any] = {**kept, "ablate": ablate, "ablate_with": ablate_with}
        ProbeOptions.of(self.options)  # refuses a bad value now, not at the first measurement
        self._latest: dict[str, Snapshot] = {}
        self._measured: int | None = None
        self._pending = False
        self._left_out: set[str] = set()

    @property
    def history(self) -> list[dict[str, Any]]:
        """What has been measured, one line per step, probe and estimator: loss, total, shares and JS distance."""
        return self._history.lines

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        data = getattr(trainer, "datamodule", None)
        if stage == "fit" and not hasattr(data, "probe_batches"):
            raise ValueError(f"ImportanceTracker needs a data module with probes (SpeechTextData), got {data!r}")

    @override
    def state_dict(self) -> dict[str, Any]:
        return self._history.state_dict()

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._history.load_state_dict(state_dict)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._measured = None
        self._pending = False
        step = trainer.global_step
        if trainer.is_global_zero:
            self._history.go_on(_folder(trainer), step)
        if self.history:
            last = self.history[-1]["step"]
            # What of this step is owed (a checkpoint's measurement, or one that was due when the run was stopped) comes
            # in the next training hook, as if the checkpoint had just been saved: its validation comes first.
            self._pending = (self.at_checkpoints or self._is_due(step)) and step > last
            self._measured = step if step == last else None
        elif self.at_start:
            self.measure(trainer, pl_module)

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        self._latest = {}  # the weights are about to change
        self._measure_pending(trainer, pl_module)

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        if self._is_due(trainer.global_step) and trainer.global_step != self._measured:
            with suppress(AgreedStop):  # it comes again in the next hook, when this step has been logged
                self.measure(trainer, pl_module)

    @override
    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        # May be inside validation (inference mode) or after an error: only noted, measured in the next training hook.
        self._pending = self.at_checkpoints

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._measure_pending(trainer, pl_module)
        if self.at_end and self._measured != trainer.global_step:
            self.measure(trainer, pl_module)
        if trainer.is_global_zero:
            self._heat_maps.finish(trainer.loggers, self.history, trainer.global_step)

    def measure(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, float]:
        """Measures all probes, writes the snapshots and logs the figures.

        Args:
            trainer: Gives device placement, precision, loggers and the run directory.
            pl_module: Offers ``llm`` and ``embed``.

        Returns:
            The figures by metric key, on rank zero; empty on the others.
        """
        step = trainer.global_step
        lines: list[dict[str, Any]] = []
        self._latest = {}
        memory = SnapshotMemory.of_untouched(self.untouched_cache, trainer, pl_module, self.estimators)
        for name in self._probe_names(trainer, pl_module):
            try:
                snapshot = measure_probe(trainer, pl_module, name, self.estimators, memory, **self.options)
            except NotFiniteError as error:  # on every rank alike
                if name not in self._history.reference_steps:
                    raise
                rank_zero_warn(f"{error}; step {step} has no measurement of this probe")
                continue
            self._latest[name] = snapshot
            if trainer.is_global_zero:
                lines += self._history.keep(_folder(trainer), snapshot, is_plain(trainer, name))
        if memory is not None:
            memory.tell()
        metrics = self._log(trainer, lines)
        self._measured, self._pending = step, False  # not before: it may have been cut off
        return metrics

    def latest(self, name: str) -> Snapshot | None:
        """Returns the measurement of a probe with the weights as they are now, if there has been one; on every rank."""
        return self._latest.get(name)

    def _is_due(self, step: int) -> bool:
        return bool(self.every_n_steps and step and step % self.every_n_steps == 0)

    def _measure_pending(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._pending and self._measured != trainer.global_step:
            self.measure(trainer, pl_module)
        self._pending = False

    def _probe_names(self, trainer: Trainer, pl_module: LightningModule) -> Sequence[str]:
        names = self.probes if self.probes is not None else tuple(trainer.datamodule.probes)  # type: ignore[attr-defined]
        if not names:
            raise ValueError("ImportanceTracker: the data module defines no probes (data.probes)")
        left_out = {name for name in names if acting_weights(trainer, pl_module, name) is None}
        for name in sorted(left_out - self._left_out):
            rank_zero_info(f"importance: probe {name!r} is left out: its positions meet different weights")
        self._left_out = left_out
        return [name for name in names if name not in left_out]

    def _log(self, trainer: Trainer, lines: list[dict[str, Any]]) -> dict[str, float]:
        """Logs with one call to each logger, one summary write and one message."""
        write_lines(_folder(trainer), lines)
        lines = trainer.strategy.broadcast(lines)  # the history is in every rank's checkpoint state
        step = trainer.global_step
        metrics = self._history.note(step, lines)
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=step)
        if trainer.is_global_zero:
            self._heat_maps.log(trainer.loggers, self.history, step)
        if lines:
            rank_zero_info(headline(step, lines))
        return metrics


def _folder(trainer: Trainer) -> Path | None:
    """Returns which run directory snapshots go to; none in a trial run (``fast_dev_run``)."""
    return None if trainer.fast_dev_run else Path(trainer.default_root_dir)  # type: ignore[attr-defined]
