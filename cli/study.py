"""``textkeep study STUDY.yaml``: runs arms, seeds and grids one after another or as a SLURM array; resumable."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ..foundation.errors import INTERRUPTED
from ..foundation.outputs import check_output
from ..runs.study.archive import pack, planned_jobs, unpack
from ..runs.study.child import child_of
from ..runs.study.jobs import Job, first_jobs, fit_command, test_command
from ..runs.study.progress import duration
from ..runs.study.running import keep_plan, run_study
from ..runs.study.sharing import alone, part_of
from ..runs.study.spec import STUDY_FILE, UNTOUCHED, Study, read_study
from ..runs.study.squeue import Squeue
from ..runs.study.state import JobState, StateStore
from ..runs.study.stopping import OWN_CHILD, Stop, StudyInterrupted
from .command_parser import CommandParser
from .options import add_overwrite_option
from .output import print_table


def main(argv: list[str]) -> int:
    """Runs what is left of a study.

    Args:
        argv: The words after ``textkeep study``.

    Returns:
        0 if every run is finished, 1 if some failed, 130 after an interruption.
    """
    arguments = _parser().parse_args(argv)
    if arguments.unpack:
        return _unpack(arguments.study, arguments.unpack)
    study = _given(arguments.study, check_files=not arguments.pack)
    if arguments.pack:
        check_output("study: --pack", arguments.pack, arguments.overwrite)
        return _pack(study, arguments.pack)
    if arguments.local:
        study = replace(study, slurm=None)
    if arguments.arms:
        study = part_of(study, arguments.arms)
    if arguments.dry_run:
        return _show(study)
    study.directory.mkdir(parents=True, exist_ok=True)
    store = StateStore(study.directory)
    stop = Stop(OWN_CHILD)
    with alone(study), stop.listening():
        keep_plan(study, arguments.study)
        try:
            jobs = run_study(study, store, stop)
        except StudyInterrupted as told:
            print(f"interrupted; {f'{told}; ' * bool(str(told))}textkeep study {arguments.study} continues from here")
            return INTERRUPTED
    return _conclude(study, jobs, store)


def _given(path: Path, check_files: bool) -> Study:
    """Reads the study of a plan, or of a study's directory, wherever that has been moved to."""
    if path.is_dir():
        return replace(read_study(path / STUDY_FILE, check_files), directory=path)
    return read_study(path, check_files)


def _pack(study: Study, archive: Path) -> int:
    packed = pack(study, archive)
    print(f"{archive}: {len(packed)} finished runs, {archive.stat().st_size / 1e6:.1f} MB")
    return 0


def _unpack(path: Path, archive: Path) -> int:
    """Unpacks into the directory that a plan names, or into the one that was named itself."""
    directory = read_study(path, check_files=False).directory if path.is_file() else path
    unpack(archive, directory)
    print(f"{directory}: unpacked; textkeep study {path} continues from here, textkeep report {directory} compares")
    return 0


def _conclude(study: Study, jobs: Sequence[Job], store: StateStore) -> int:
    states = {job.name: store.read(job.name) for job in jobs}
    failed = [state for state in states.values() if state.status != "finished"]
    total = sum(state.seconds for state in states.values())
    print(f"{len(states) - len(failed)} of {len(states)} runs finished, {duration(total)} of computing")
    for state in failed:
        word = "interrupted" if state.status == "interrupted" else "failed"
        print(f"{word}: {state.job}: {state.error}; log: {study.directory / state.log}")
    print(f"textkeep report {study.directory} compares them", flush=True)
    return 1 if failed else 0


def _show(study: Study) -> int:
    """Shows what would run and what is running."""
    store = StateStore(study.directory)
    jobs = first_jobs(study)
    names = {job.name for job in jobs}
    jobs += [job for job in planned_jobs(study) if job.name not in names and store.read(job.name).attempts]
    states = [store.read(job.name) for job in jobs]
    asks = any(state.task for state in states) and shutil.which("squeue") is not None
    known = (Squeue(study.directory).ask() if asks else None) or {}
    print_table(
        f"{study.directory}: runs planned so far",
        ("run", "state", "directory"),
        [(job.name, _status(state, known), str(job.directory)) for job, state in zip(jobs, states, strict=True)],
    )
    for trained in [job for job in jobs if job.arm != UNTOUCHED][:1]:
        print(" ".join(fit_command(study, trained, resume=False)))
        if study.test:
            print(" ".join(test_command(study, trained)))
    return 0


def _status(state: JobState, known: Mapping[str, str]) -> str:
    """Returns a run's status, with the process or task that runs it."""
    if state.status == "finished":
        return state.status
    task = f"task {state.task} {known.get(state.task, '')}".rstrip() if state.task else ""
    holder = child_of(state) or task
    status = "interrupted" if state.status == "running" and not holder else state.status
    return f"{status} ({holder})" if holder else status


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(prog="textkeep study", description=__doc__)
    parser.add_argument("study", type=Path, metavar="STUDY.yaml", help="the plan, or a study's directory")
    parser.add_argument("--dry-run", action="store_true", help="show what would run")
    parser.add_argument("--local", action="store_true", help="run on this machine, whatever the plan says about SLURM")
    parser.add_argument(
        "--arms",
        nargs="+",
        metavar="ARM",
        help="run only these arms (or `untouched`); other processes may run the others",
    )
    packing = parser.add_mutually_exclusive_group()
    packing.add_argument(
        "--pack", type=Path, metavar="FILE.tar.xz", help="write the finished runs to one small file, without weights"
    )
    packing.add_argument(
        "--unpack", type=Path, metavar="FILE.tar.xz", help="restore the study's directory from such a file"
    )
    add_overwrite_option(parser)
    return parser
