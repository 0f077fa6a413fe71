"""The runs of a study, and their commands."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...foundation.outputs import OVERWRITE
from ...foundation.run_names import CONFIG
from .spec import UNTOUCHED, Arm, Study

PROGRAM = (sys.executable, "-m", "textkeep.cli.main")


@dataclass(frozen=True)
class Job:
    """One run: an arm at a point of its grid with a seed; or the test of the untouched LLM.

    Attributes:
        arm: Its name.
        point: Dotted setting -> value.
        seed: Seed of everything random.
        directory: The run's.
        test: Whether it is scored on the test questions; grid points are not until one is chosen.
    """

    arm: str
    point: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    directory: Path = Path()
    test: bool = True

    @property
    def variant(self) -> str:
        """Arm and point, as in ``lora,lr=0.0001``, common to the runs of all seeds."""
        return variant_name(self.arm, self.point)

    @property
    def name(self) -> str:
        """Name of the state and log files, and in messages."""
        return self.arm if self.arm == UNTOUCHED else f"{self.variant},seed={self.seed}"


def variant_name(arm: str, point: Mapping[str, Any]) -> str:
    """Names an arm at a point of its grid, suitable for a folder."""
    parts = [f"{_short(key, point)}={_plain(value)}" for key, value in point.items()]
    return ",".join([arm, *parts])


def _short(key: str, point: Mapping[str, Any]) -> str:
    """Returns the last part of a dotted setting, or all of it if two settings end alike."""
    last = key.rsplit(".", 1)[-1]
    return last if sum(other.rsplit(".", 1)[-1] == last for other in point) == 1 else key


def _plain(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return "".join(c if c.isalnum() or c in "._+-" else "_" for c in text)


def points(arm: Arm) -> list[dict[str, Any]]:
    """Lists every combination of the grid's values; one empty point without a grid."""
    return [dict(zip(arm.grid, values, strict=True)) for values in itertools.product(*arm.grid.values())]


def job_of(study: Study, arm: Arm, point: Mapping[str, Any], seed: int, test: bool = True) -> Job:
    """Returns a run of an arm."""
    folder = study.directory / "runs" / variant_name(arm.name, point) / f"seed={seed}"
    return Job(arm.name, dict(point), seed, folder, test and study.test)


def untouched_job(study: Study) -> Job:
    """Returns the test of the untouched LLM; ``textkeep test`` appends its verb if the directory holds no run."""
    return Job(UNTOUCHED, directory=study.directory / "runs" / f"{UNTOUCHED}-test")


def first_jobs(study: Study) -> list[Job]:
    """Lists what can run first: everything or, with a selection, the grids with each arm's first seed, untested."""
    jobs = [untouched_job(study)] if study.untouched else []
    return jobs + [job for arm in study.arms for job in arm_jobs(study, arm)]


def run_count(study: Study) -> int:
    """Counts the planned runs; the chosen point of a grid proceeds to the test and counts again."""
    sizes = [(len(points(arm)), len(arm.seeds), chooses(study, arm)) for arm in study.arms]
    return study.untouched + sum(made + seeds if choosing else made * seeds for made, seeds, choosing in sizes)


def arm_jobs(study: Study, arm: Arm) -> list[Job]:
    """Returns an arm's part of :func:`first_jobs`."""
    choosing = chooses(study, arm)
    seeds = arm.seeds[:1] if choosing else arm.seeds
    return [job_of(study, arm, point, seed, test=not choosing) for point in points(arm) for seed in seeds]


def chooses(study: Study, arm: Arm) -> bool:
    """Returns whether the arm's point is chosen before its other seeds run."""
    return study.selection is not None and len(points(arm)) > 1


def fit_command(study: Study, job: Job, resume: bool) -> list[str]:
    """Returns the arguments of ``textkeep fit`` for a job.

    Args:
        study: The plan.
        job: The run.
        resume: Continue the run in its directory, from the last checkpoint or else from the start.
    """
    arm = next(arm for arm in study.arms if arm.name == job.arm)
    settings = {**study.settings, **arm.settings, **job.point}
    settings |= {"seed_everything": job.seed, "data.seed": job.seed, "trainer.default_root_dir": str(job.directory)}
    last = ["--ckpt_path", "last"] if resume else []
    return [*PROGRAM, "fit", *_configs(study.configs + arm.configs), *_options(settings), *last]


def test_command(study: Study, job: Job) -> list[str]:
    """Returns the arguments of ``textkeep test`` for a finished job or the untouched LLM, replacing a partial test."""
    if job.arm == UNTOUCHED:
        wanted = job.directory.with_name(UNTOUCHED)
        settings = {**study.settings, **study.test_settings, "trainer.default_root_dir": str(wanted)}
        return [*PROGRAM, "test", *_configs(study.configs + study.test_configs), *_options(settings), OVERWRITE]
    settings = {**study.test_settings, "trainer.default_root_dir": str(job.directory)}
    configs = (str(job.directory / CONFIG), *study.test_configs)
    return [*PROGRAM, "test", *_configs(configs), *_options(settings), OVERWRITE, "--ckpt_path", "last"]


def _configs(names: tuple[str, ...]) -> list[str]:
    return [word for name in names for word in ("--config", name)]


def _options(settings: Mapping[str, Any]) -> list[str]:
    return [f"--{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in settings.items()]
