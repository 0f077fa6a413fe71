"""Checkpoints in the run directory."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from torch import Tensor
from torch.optim import Optimizer
from typing_extensions import override

from ...foundation.errors import RunError
from ...foundation.files import remove_unfinished, replace_link
from ...foundation.run_names import CHECKPOINTS
from ...foundation.sharded_checkpoint import is_checkpoint
from ..stopping.agreed_stop import AgreedStop
from .checkpoint_io import after_saving, finish_saving, write_together, write_whole
from .kept_checkpoints import KeptCheckpoints, moved
from .step_window import StepWindow, in_doubt


class RunCheckpoint(ModelCheckpoint):
    """Lightning's ``ModelCheckpoint`` with the defaults of a run directory.

    Files are ``<run>/checkpoints/step=000120.ckpt``; ``last.ckpt`` is a link to the newest. The last step is always
    saved; Ctrl-C and SIGTERM leave a checkpoint too, which goes when the next one is there. A file appears when it is
    whole and on the disk, and only then the one that it replaces goes. A continued run removes what the run before it
    would have removed: it ends with the files of a run that was never interrupted. Where ``FSDP2`` writes folders while
    training goes on, what is said of files here holds for these, and the end of a fit waits for the last.

    Args:
        every_n_train_steps: Optimizer steps between two checkpoints. ``None`` saves after each validation.
        train_time_interval: Time between two checkpoints, instead of steps.
        monitor: Metric that decides which ``save_top_k`` are kept, for example ``val/speech_ce``.
        mode: ``min`` or ``max``: whether the best ``monitor`` is the lowest or the highest.
        save_top_k: Files kept: 1 the newest (with ``monitor``, the best), -1 all. A checkpoint of a fully tuned model
            takes three times the model's fp32 size (weights and Adam's two moments); there must be room for one more.
        save_weights_only: Leave out the optimizer's state. Such a file cannot be continued from.
        save_last: ``link`` points ``last.ckpt`` to the newest file; true writes it a second time; false leaves it out.
        dirpath: Another folder than ``<run>/checkpoints``.
    """

    def __init__(
        self,
        every_n_train_steps: int | None = None,
        train_time_interval: timedelta | None = None,
        monitor: str | None = None,
        mode: Literal["min", "max"] = "min",
        save_top_k: int = 1,
        save_weights_only: bool = False,
        save_last: bool | Literal["link"] = "link",
        dirpath: str | Path | None = None,
    ) -> None:
        super().__init__(
            dirpath=dirpath,
            filename="step={step:06d}",
            auto_insert_metric_name=False,
            monitor=monitor,
            mode=mode,
            save_last=save_last,
            save_top_k=save_top_k,
            save_weights_only=save_weights_only,
            save_on_exception=True,
            every_n_train_steps=every_n_train_steps,
            train_time_interval=train_time_interval,
            # A run directory belongs to one run, and a resumed run overwrites its own file instead of numbering it.
            enable_version_counter=False,
        )
        self._every = every_n_train_steps or 0
        self._kept = KeptCheckpoints()
        self._step_window = StepWindow()
        self._training = False
        self._resumed_from: Path | None = None
        self._resumed_step: int | None = None

    # ------------------------------------------------------------------ hooks

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self.dirpath is None:
            self.dirpath = os.path.join(os.path.abspath(trainer.default_root_dir), CHECKPOINTS)
        super().setup(trainer, pl_module, stage)
        write_whole(trainer)
        self._training, self._resumed_from, self._resumed_step = False, None, None

    @override
    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._resumed_from = Path(str(trainer.ckpt_path)).resolve()

    @override
    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "kept": self._kept.state()}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict["dirpath"] != self.dirpath:
            if not self._resumed_here():
                return  # a new run that starts from another's weights: the other's files are not its own
            state_dict = moved(state_dict, str(self.dirpath))
        super().load_state_dict(state_dict)
        self._kept.restore(state_dict.get("kept", {}), str(self.dirpath), self.best_k_models)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._training = True  # before, the step may be the resumed one and the weights not
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        if trainer.is_global_zero:
            remove_unfinished(Path(str(self.dirpath)), "*.ckpt")
        self._forget_missing(trainer)
        if self._resumed_here():
            self._resumed_step = trainer.global_step
            own = self.format_checkpoint_name(self._monitor_candidates(trainer))
            if not self._kept.newest and Path(own).resolve() == self._resumed_from:
                self._kept.newest = own  # of an earlier version, or of another schedule
            if self._kept.newest:
                self._remove_surplus(trainer)

    @override
    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        self._step_window.enter(trainer)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Lightning leaves the steps after the last validation out of every file.
        saved = super()._should_skip_saving_checkpoint(trainer) or trainer.global_step == self._resumed_step
        if not saved and self.save_top_k != 0:
            self._save_now(trainer, regular=self.monitor is None)
        finish_saving(trainer)

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        # Saving is collective. An error of one rank finds the others in another collective: it would hang them.
        together = isinstance(exception, AgreedStop) or trainer.world_size == 1
        step = trainer.global_step
        if isinstance(exception, RunError) or not self._training or not together or step == self._resumed_step:
            return
        if not self._should_save_on_exception(trainer) or in_doubt(trainer):
            return
        if self._step_window.is_open(trainer):
            rank_zero_warn(f"stopped inside of the optimizer step after step {step}: these weights are not saved")
            return
        try:
            self._save_now(trainer, regular=self._every > 0 and step % self._every == 0)
            finish_saving(trainer)
        except Exception as error:  # it shall not hide the one that ends the run
            rank_zero_warn(f"step {step} is not saved: {error}")
        else:
            rank_zero_info(f"saved {self._last_checkpoint_saved}; --ckpt_path last continues from it")

    # ------------------------------------------------------------------ saving

    def save_anew(self) -> None:
        """Has the last step saved once more at the end of the fit: its weights have changed since."""
        self._last_global_step_saved, self._resumed_step = 0, None

    @override
    def _should_skip_saving_checkpoint(self, trainer: Trainer) -> bool:
        return super()._should_skip_saving_checkpoint(trainer) or in_doubt(trainer)

    def _save_now(self, trainer: Trainer, regular: bool) -> None:
        """Saves the present state, also where the schedule or the monitored metric does not ask for it.

        Args:
            trainer: At the end of a step.
            regular: Whether the schedule asks for it: then it is kept as long as any other.
        """
        metrics = self._monitor_candidates(trainer)
        replaces = self.monitor is None and self.save_top_k == 1
        known = self.monitor is None or self.monitor in metrics
        if self.save_top_k != 0 and known and (regular or replaces):
            self._save_topk_checkpoint(trainer, metrics)
        if self._last_global_step_saved != trainer.global_step and (self.save_top_k != 0 or not self.save_last):
            self._write(trainer, self.format_checkpoint_name(metrics), aside=True)
        self._save_last_checkpoint(trainer, metrics)

    @override
    def _save_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        self._write(trainer, filepath, aside=False)

    def _write(self, trainer: Trainer, path: str, aside: bool) -> None:
        """Writes a checkpoint, on all ranks together.

        Raises:
            RunError: If there is no room for it, on all ranks.
        """
        before = self._kept.newest
        if Path(path).stem != self.CHECKPOINT_NAME_LAST:
            self._kept.note(path, self.best_k_models, aside, self.monitor is None and self.save_top_k == 1)
        write_together(trainer, lambda: super(RunCheckpoint, self)._save_checkpoint(trainer, path), before)

    @override
    def _save_last_checkpoint(self, trainer: Trainer, monitor_candidates: dict[str, Tensor]) -> None:
        super()._save_last_checkpoint(trainer, monitor_candidates)
        self._remove_surplus(trainer)  # not before the link to the newest stands

    @staticmethod
    @override
    def _link_checkpoint(trainer: Trainer, filepath: str, linkpath: str) -> None:

        def link() -> None:
            try:
                replace_link(Path(linkpath), Path(filepath))
            except OSError as error:  # the checkpoint itself is there, and is found without
                rank_zero_warn(f"{linkpath} still leads to an older checkpoint: {error}")

        if trainer.is_global_zero:
            after_saving(trainer, link)
        trainer.strategy.barrier("RunCheckpoint.link")

    # ------------------------------------------------------------------ removing

    @override
    def _remove_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        """Leaves it to :meth:`_remove_surplus`, which comes when ``last`` leads to the new one."""

    def _remove_surplus(self, trainer: Trainer) -> None:
        others = [c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint) and c is not self]
        named = {os.path.abspath(path) for other in others for path in _files_of(other)}
        passing = [path for path in self._kept.surplus() if os.path.abspath(path) not in named]

        def remove() -> None:
            for path in filter(is_checkpoint, passing):
                try:
                    trainer.strategy.remove_checkpoint(path)
                except OSError as error:
                    rank_zero_warn(f"{path} is no longer needed and cannot be removed: {error}")

        if trainer.is_global_zero:
            after_saving(trainer, remove)
        self._kept.passing = []

    def _resumed_here(self) -> bool:
        """Returns whether the run continues from a file in its own folder."""
        return self._resumed_from is not None and self._resumed_from.parent == Path(str(self.dirpath)).resolve()

    def _forget_missing(self, trainer: Trainer) -> None:
        """Forgets files that are no longer there: removed by hand, or never there where the run was moved."""
        present = {path for path in (self._kept.newest, *self.best_k_models) if path and is_checkpoint(path)}
        present = trainer.strategy.broadcast(present)
        self._kept.forget_missing(present)
        if self.monitor is None or present.issuperset(self.best_k_models):
            return
        self.best_k_models = {path: value for path, value in self.best_k_models.items() if path in present}
        best = min if self.mode == "min" else max
        self.best_model_path = best(self.best_k_models, key=self.best_k_models.__getitem__, default="")
        self.best_model_score = self.best_k_models.get(self.best_model_path)
        self.kth_best_model_path = ""  # chosen anew when there are save_top_k of them


def _files_of(callback: ModelCheckpoint) -> list[str]:
    own = [callback._kept.newest] if isinstance(callback, RunCheckpoint) else []
    return [*own, *callback.best_k_models, callback.best_model_path, callback.last_model_path]
