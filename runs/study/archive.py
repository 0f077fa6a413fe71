"""A study in one small file: what a report needs and which runs are finished, without weights."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from collections.abc import Iterator
from lzma import LZMAError
from pathlib import Path

from ...foundation.errors import UserError
from ...foundation.files import replacing
from ...foundation.run_names import CHECKPOINTS, WANDB
from .jobs import Job, job_of, points, untouched_job
from .spec import STUDY_FILE, Study
from .state import StateStore

SELECTION_FILE = "selection.json"
ENDING = ".tar.xz"

_KEPT = {".yaml", ".csv", ".json", ".jsonl", ".safetensors"}
_LEFT_OUT = {CHECKPOINTS, WANDB, "masks.safetensors", "maps.safetensors"}
_STATS = "stats.safetensors"
_LONG = ("rows/", "columns/")


def pack(study: Study, archive: Path) -> list[Job]:
    """Writes plan, states, selection and the finished runs of a study to one file, the same bytes each time.

    Each run's configuration, metrics, scores and importance tables are kept. Checkpoints, W&B files, pictures,
    per-weight masks and maps, and the row and column sums of snapshots (nine tenths of their size) are left out.

    Args:
        study: Its plan, with its directory.
        archive: Ends in ``.tar.xz``.

    Returns:
        The finished runs, which it contains.

    Raises:
        UserError: If the file's name ends differently, or no run is finished.
    """
    if not archive.name.endswith(ENDING):
        raise UserError(f"study: --pack {archive} (allowed: a file whose name ends in {ENDING})")
    store = StateStore(study.directory)
    jobs = planned_jobs(study)
    finished = [job for job in jobs if store.read(job.name).status == "finished" and job.directory.is_dir()]
    if not finished:
        raise UserError(f"study: no run of {study.directory} is finished; there is nothing to pack")
    states = [store.folder / f"{job.name}.json" for job in jobs]
    files = [study.directory / STUDY_FILE, study.directory / SELECTION_FILE, *states]
    files = [path for path in files if path.is_file()] + [path for job in finished for path in _files(job.directory)]
    root = Path(study.directory.resolve().name)
    with replacing(archive) as temporary, tarfile.open(temporary, "w:xz") as made:
        for path in sorted(files):
            _add(made, root / path.relative_to(study.directory), _content(path))
    return finished


def unpack(archive: Path, directory: Path) -> None:
    """Makes a study's directory from a packed one.

    Args:
        archive: Written by :func:`pack`. Members that would leave the directory are refused.
        directory: Must be new or empty.

    Raises:
        UserError: If the file is not a packed study, or the directory is not empty.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise UserError(f"study: --unpack: {directory} is not empty (allowed: a new directory)")
    temporary = directory.with_name(f".{directory.name}.{os.getpid()}.tmp")
    try:
        try:
            with tarfile.open(archive) as packed:
                packed.extractall(temporary, filter="data")
        except (OSError, EOFError, LZMAError, tarfile.TarError) as error:
            raise UserError(f"study: --unpack {archive}: {' '.join(str(error).split())}") from error
        roots = list(temporary.iterdir()) if temporary.is_dir() else []
        if len(roots) != 1 or not (roots[0] / STUDY_FILE).is_file():
            raise UserError(f"study: --unpack {archive}: is not a packed study (there is no {STUDY_FILE} in it)")
        roots[0].replace(directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def planned_jobs(study: Study) -> list[Job]:
    """Lists every run that the plan can ask for."""
    jobs = [untouched_job(study)] if study.untouched else []
    return jobs + [job_of(study, arm, point, seed) for arm in study.arms for point in points(arm) for seed in arm.seeds]


def _files(run: Path) -> Iterator[Path]:
    for path in sorted(run.rglob("*")):
        names = path.relative_to(run).parts
        hidden = any(name.startswith(".") or name in _LEFT_OUT for name in names)
        if not hidden and path.suffix in _KEPT and path.is_file() and not path.is_symlink():
            yield path


def _content(path: Path) -> bytes:
    data = path.read_bytes()
    if path.name != _STATS:
        return data
    from safetensors.numpy import load, save

    return save({key: value for key, value in load(data).items() if not key.startswith(_LONG)})


def _add(archive: tarfile.TarFile, name: Path, content: bytes) -> None:
    """Strips owner and time from a member, so that equal studies give equal files."""
    member = tarfile.TarInfo(name.as_posix())
    member.size, member.mode = len(content), 0o644
    archive.addfile(member, io.BytesIO(content))
