"""Weights & Biases that never stops a run: online when it can, offline otherwise."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Literal

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from typing_extensions import override

RUN_FILE = "wandb_run.json"
STEP_METRIC = "trainer/global_step"


class ResilientWandbLogger(WandbLogger):
    """Lightning's ``WandbLogger`` that falls back to offline instead of stopping, asking or hanging.

    - Online if the machine is logged in (``wandb login`` or ``WANDB_API_KEY``), else offline; ``WANDB_MODE`` decides
      when it is set. A server that cannot be reached turns the run offline, with one line about it.
    - The run's id is kept in ``<run>/wandb_run.json``, so that a run which is continued stays one W&B run.
    - The end of the process waits at most ``finish_timeout`` for uploads; what is left can be sent by ``wandb sync``.
    - Every metric is drawn over ``trainer/global_step``. No other ``define_metric`` glob may be added: where two
      overlap, wandb picks one at random.

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
            id=_saved_id(folder),
            log_model=log_model,
            entity=entity,
            group=group,
            tags=tags,
            notes=notes,
        )
        self._wandb_init.pop("anonymous")  # wandb 0.31 warns that it has no effect
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
            self._remember()
        return self._experiment

    @property
    def _folder(self) -> Path:
        return Path(str(self.save_dir))

    def _start(self) -> Any:
        """A new or continued run: online if possible."""
        import wandb

        if wandb.run is not None:
            return wandb.run
        mode, reason = os.environ.get("WANDB_MODE"), "WANDB_MODE"
        try:
            if mode is None:
                mode, reason = "online" if wandb.login(prompt=False, verify=False) else "offline", "not logged in"
            if mode == "online":
                return self._init(mode)
        except (wandb.Error, OSError) as error:
            wandb.teardown()  # without it wandb keeps the failed connection for the offline run
            mode, reason = "offline", " ".join(str(error).split())
        run = self._init(mode)
        if mode == "offline":
            rank_zero_info(f"W&B is offline ({reason}); to upload later: wandb sync {run.sync_dir}")
        return run

    def _init(self, mode: Any) -> Any:
        import wandb

        settings = wandb.Settings(
            init_timeout=self._init_timeout, finish_timeout=self._finish_timeout, silent=mode != "online"
        )
        return wandb.init(**self._wandb_init, mode=mode, settings=settings)

    def _remember(self) -> None:
        """Writes the run's id beside the run, whole or not at all."""
        run: Any = self._experiment
        record = {"id": run.id, "project": self._project, "name": run.name}
        temporary = self._folder / f"{RUN_FILE}.tmp"
        temporary.write_text(json.dumps(record, indent=1) + "\n")
        temporary.replace(self._folder / RUN_FILE)


def _saved_id(folder: Path) -> str | None:
    """The id of the run that this directory already holds."""
    path = folder / RUN_FILE
    return json.loads(path.read_text())["id"] if path.is_file() else None
