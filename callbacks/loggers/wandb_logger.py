"""Weights & Biases that never stops a run: online when it can, offline otherwise."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_only, rank_zero_warn
from typing_extensions import override

from ...foundation.run_names import HEAT_MAP_CHART, HEAT_MAP_FIELDS, STEP_METRIC
from ...foundation.signals import unreached_children
from .wandb_failures import is_of_wandb, means_lost_process, one_line
from .wandb_identity import keep_id, saved_id
from .wandb_names import MetricNames

MODES = ("online", "offline", "shared", "disabled", "dryrun", "run")


class ResilientWandbLogger(WandbLogger):
    """Lightning's ``WandbLogger`` that falls back to offline instead of stopping, asking or hanging.

    - Online if the machine is logged in (``wandb login`` or ``WANDB_API_KEY``), else offline; ``WANDB_MODE`` decides
      when it is set. A server that cannot be reached turns the run offline, with one line about it.
    - The run's id is kept in ``<run>/wandb_run.json``, so that a run which is continued stays one W&B run.
    - The end of the process waits at most ``finish_timeout`` for uploads; what is left can be sent by ``wandb sync``.
    - W&B's own process may die (out of memory, say): the run then goes on offline under the same id.
    - Every metric is drawn over ``trainer/global_step``, and defined by its exact name. No other ``define_metric`` glob
      may be added: where two overlap, wandb picks one at random.

    Args:
        save_dir: Folder of ``wandb/`` and ``wandb_run.json``; the command line sets it to the run directory.
        project: W&B project; default ``$WANDB_PROJECT``, else ``textkeep``.
        name: Name of the run; default that of the run directory.
        entity: User or team; default that of the login.
        group: Runs that belong together, for example the seeds of one setting.
        tags: Tags of the run.
        notes: Longer description.
        log_model: Upload checkpoints: false, true (at the end) or ``all``. They are as large as the LLM.
        init_timeout: Seconds to wait for the server at the start.
        finish_timeout: Seconds to wait for uploads at the end.
    """

    def __init__(
        self,
        save_dir: str | os.PathLike[str] = ".",
        project: str | None = None,
        name: str | None = None,
        entity: str | None = None,
        group: str | None = None,
        tags: list[str] | None = None,
        notes: str | None = None,
        log_model: bool | Literal["all"] = False,
        init_timeout: float = 10.0,
        finish_timeout: float = 60.0,
    ) -> None:
        folder = Path(save_dir).absolute()
        super().__init__(
            save_dir=folder,
            project=project or os.environ.get("WANDB_PROJECT", "textkeep"),
            name=name or folder.name,
            id=saved_id(folder),
            log_model=log_model,
            entity=entity,
            group=group,
            tags=tags,
            notes=notes,
        )
        self._wandb_init.pop("anonymous")  # wandb 0.31 warns that it has no effect
        self._offline_because = ""
        self._lost = False
        self._is_guarded = False
        self._names = MetricNames()
        self._told_of_entity = False
        self._init_timeout = init_timeout
        self._finish_timeout = finish_timeout

    @property
    @override
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The W&B run; made at the first access, on rank zero."""
        if self._experiment is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._experiment = self._start()
            self._experiment.define_metric(STEP_METRIC)
            self._experiment.define_metric("*", step_metric=STEP_METRIC, step_sync=True)
            keep_id(self._folder, self._experiment, self._project)
        return self._experiment

    @override
    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        self._guarded(lambda: self._log(metrics, step))

    @override
    @rank_zero_only
    def log_hyperparams(self, params: Any) -> None:
        self._guarded(lambda: super(ResilientWandbLogger, self).log_hyperparams(params))

    @override
    @rank_zero_only
    def log_image(self, key: str, images: list[Any], step: int | None = None, **kwargs: Any) -> None:
        self._guarded(lambda: super(ResilientWandbLogger, self).log_image(key, images, step, **kwargs))

    @rank_zero_only
    def log_heat_map_table(self, key: str, rows: Sequence[Sequence[Any]], title: str, step: int) -> None:
        """Logs a table and the Vega heat map of it.

        The chart is a preset of the entity, made once by ``textkeep dashboard``. Where no entity is known (offline,
        without ``entity`` and ``WANDB_ENTITY``) the table is logged alone, with a line about it.

        Args:
            key: Name of the chart; the table is ``<key>_table``.
            rows: (step, layer, estimator, share in percent) each.
            title: Of the chart.
            step: Optimizer step.
        """
        self._guarded(lambda: self._log_table(key, rows, title, step))

    def _log_table(self, key: str, rows: Sequence[Sequence[Any]], title: str, step: int) -> None:
        import wandb

        table = wandb.Table(columns=list(HEAT_MAP_FIELDS), data=[list(row) for row in rows])
        entity = getattr(self.experiment, "entity", None) or self._wandb_init.get("entity")
        if not entity:
            if not self._told_of_entity:
                rank_zero_info(
                    "W&B: no entity is known, so heat maps are tables without a chart; WANDB_ENTITY names one"
                )
            self._told_of_entity = True
            self.log_metrics({f"{key}_table": table}, step)
            return
        fields = {name: name for name in HEAT_MAP_FIELDS}
        chart = wandb.plot_table(f"{entity}/{HEAT_MAP_CHART}", table, fields, {"title": title})
        self.log_metrics({key: chart}, step)

    @override
    @rank_zero_only
    def finalize(self, status: str) -> None:
        self._names.wait()
        super().finalize(status)

    def _log(self, metrics: Mapping[str, Any], step: int | None) -> None:
        self._names.define_around(
            self.experiment, metrics, lambda: super(ResilientWandbLogger, self).log_metrics(metrics, step)
        )

    def _guarded(self, action: Callable[[], None]) -> None:
        """Does something with the run; when W&B's process is gone, again with an offline run of the same id.

        Of guarded actions inside of each other the outermost is done again: pictures and tables belong to the run for
        which they were made.
        """
        if self._lost:
            return
        if self._is_guarded:
            action()
            return
        self._is_guarded = True
        try:
            action()
        except Exception as error:
            if not is_of_wandb(error):
                raise
            self._leave(error)
            self._once_more(action)
        finally:
            self._is_guarded = False

    def _once_more(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:
            if not is_of_wandb(error):
                raise
            self._lost = True
            rank_zero_warn(f"nothing more of this run goes to W&B: {one_line(error)}")

    def _leave(self, error: Exception) -> None:
        """Forgets a run whose process is lost; the next access to ``experiment`` makes an offline one."""
        import wandb

        lost = "its process was lost: " if means_lost_process(error) else ""
        self._offline_because = f"{lost}{one_line(error)}"
        self._id = self._wandb_init["id"] = self.version
        self._experiment = None
        self._names.forget()
        with suppress(Exception):  # what is left of it cannot even end
            wandb.teardown()
        wandb.run = None  # otherwise it would be taken for a run to continue

    @property
    def _folder(self) -> Path:
        return Path(str(self.save_dir))

    def _start(self) -> Any:
        """Starts or continues a run: online if possible."""
        import wandb

        if wandb.run is not None:
            return wandb.run
        mode, reason = os.environ.get("WANDB_MODE"), "WANDB_MODE"
        if mode is not None and mode not in MODES:
            raise ValueError(f"WANDB_MODE: {mode!r} is none; allowed: {', '.join(MODES)}")
        if self._offline_because:
            mode, reason = "offline", self._offline_because
        try:
            if mode is None:
                mode, reason = "online" if wandb.login(prompt=False, verify=False) else "offline", "not logged in"
                self._told_of_entity = mode == "offline"  # without an account there is none to name
            if mode == "online":
                return self._init(mode)
        except (wandb.Error, OSError) as error:
            wandb.teardown()  # without it wandb keeps the failed connection for the offline run
            mode, reason = "offline", one_line(error)
        run = self._init(mode)
        if mode == "offline":
            rank_zero_info(f"W&B is offline ({reason}); to upload later: wandb sync {shlex.quote(run.sync_dir)}")
        return run

    def _init(self, mode: Any) -> Any:
        import wandb

        settings = wandb.Settings(
            init_timeout=self._init_timeout, finish_timeout=self._finish_timeout, silent=mode != "online"
        )
        with unreached_children():  # its process is needed until the run has ended
            return wandb.init(**self._wandb_init, mode=mode, settings=settings)
