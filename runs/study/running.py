"""Runs the rest of a study: arm after arm locally, all arms at once on a cluster."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from ...foundation.errors import UserError
from ...foundation.files import replacing
from ...foundation.run_names import CHECKPOINTS
from .archive import planned_jobs
from .jobs import Job, arm_jobs, chooses, run_count, untouched_job
from .local import run_locally
from .progress import Progress
from .selection import choose
from .sharing import record_choice
from .slurm import check_free, run_on_slurm
from .spec import STUDY_FILE, Arm, Study
from .state import StateStore
from .stopping import Stop


def run_study(study: Study, store: StateStore, stop: Stop) -> list[Job]:
    """Runs the rest; locally arm after arm, so that a stopped study has complete arms.

    Args:
        study: The plan.
        store: The states of its runs.
        stop: What this process is asked.

    Returns:
        All its jobs.

    Raises:
        StudyInterrupted: By a signal; the run of this machine has saved a checkpoint, the tasks of SLURM go on.
    """
    progress = Progress(run_count(study), study.directory)
    before = sum(store.read(job.name).status == "finished" for job in planned_jobs(study))
    if before:
        print(f"{before} runs were finished before", flush=True)
    jobs = [untouched_job(study)] if study.untouched else []
    _execute(study, jobs, store, progress, stop)
    for arms in [(arm,) for arm in study.arms] if study.slurm is None else [study.arms]:
        first = [job for arm in arms for job in arm_jobs(study, arm)]
        _execute(study, first, store, progress, stop)
        later = [job for arm in arms if chooses(study, arm) for job in _chosen(study, arm, store)]
        _execute(study, later, store, progress, stop)
        _discard_checkpoints(study, [*later, *first], store)
        jobs += [*first, *later]
    return jobs


def keep_plan(study: Study, path: Path) -> None:
    """Writes a copy of the plan, so that no other plan mixes with it in the same directory.

    Args:
        study: The plan.
        path: Path of the plan, for messages.

    Raises:
        UserError: If the directory belongs to another study.
    """
    kept = study.directory / STUDY_FILE
    if kept.is_file() and kept.read_text(encoding="utf-8") != study.text:
        print(f"{path} was changed since {kept} was written: runs that are finished stay as they are", flush=True)
    elif not kept.is_file() and any(not entry.name.startswith(".lock.") for entry in study.directory.iterdir()):
        raise UserError(f"study: {study.directory} contains something else (allowed: a new directory, or a study's)")
    with replacing(kept) as temporary:
        temporary.write_text(study.text, encoding="utf-8")


def _chosen(study: Study, arm: Arm, store: StateStore) -> list[Job]:
    """Returns the runs of the chosen point of an arm's grid; the choice is recorded in the study's directory."""
    jobs, choice = choose(study, arm, store)
    record_choice(study.directory, arm.name, choice)
    print(f"{arm.name}: {choice['chosen'] or 'no point of its grid finished'}", flush=True)
    return jobs


def _execute(study: Study, jobs: Sequence[Job], store: StateStore, progress: Progress, stop: Stop) -> None:
    left = [job for job in jobs if not store.read(job.name).done(job.test)]
    progress.skip(len(jobs) - len(left))
    if left and study.slurm is None:
        check_free(study, left, store)
        run_locally(study, left, store, progress, stop)
    elif left:
        run_on_slurm(study, left, store, progress, stop)


def _discard_checkpoints(study: Study, jobs: Sequence[Job], store: StateStore) -> None:
    """Removes the checkpoints of completed runs, except those that the plan keeps."""
    if study.keep_checkpoints == {arm.name for arm in study.arms}:
        return
    kept = {job.directory for job in jobs if job.test and job.arm in study.keep_checkpoints}
    for job in jobs:
        if job.directory not in kept and store.read(job.name).done(job.test):
            shutil.rmtree(job.directory / CHECKPOINTS, ignore_errors=True)
