"""Several processes on one study, each with its own arms: which arms, and who may change what."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...foundation.errors import UserError
from ...foundation.files import write_json
from .archive import SELECTION_FILE
from .locking import exclusively
from .spec import UNTOUCHED, Study


def part_of(study: Study, names: Sequence[str]) -> Study:
    """Returns the study with some of its arms only.

    Args:
        study: The plan.
        names: Of arms, or ``untouched``.

    Raises:
        UserError: If a name is not in the plan.
    """
    known = [UNTOUCHED] * study.untouched + [arm.name for arm in study.arms]
    unknown = next((name for name in names if name not in known), None)
    if unknown is not None:
        raise UserError(f"study: --arms: {unknown!r} (allowed: {', '.join(known)})")
    return replace(
        study,
        arms=tuple(arm for arm in study.arms if arm.name in names),
        untouched=study.untouched and UNTOUCHED in names,
    )


@contextmanager
def alone(study: Study) -> Iterator[None]:
    """Lets only one process work on an arm.

    Raises:
        UserError: If another process runs one of the study's arms.
    """
    with ExitStack() as locks:
        for name in [UNTOUCHED] * study.untouched + [arm.name for arm in study.arms]:
            lock = locks.enter_context((study.directory / f".lock.{name}").open("a+"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.seek(0)
                holder = f" ({told})" if (told := lock.read().strip()) else ""
                raise UserError(f"study: another process runs {name} of {study.directory}{holder}") from None
            lock.truncate(0)
            lock.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            lock.flush()
        yield


def record_choice(directory: Path, arm: str, choice: Mapping[str, Any]) -> None:
    """Records the chosen point of an arm's grid, beside the choices of other processes."""
    path = directory / SELECTION_FILE
    with exclusively(path.with_name(f".{path.name}.lock")):
        known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        write_json({**known, arm: choice}, path)
