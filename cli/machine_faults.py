"""One line about a fault of the machine, whichever library raised it: memory, disk, missing ranks.

Nothing heavy is imported here: errors are recognised by their class names.
"""

from __future__ import annotations

import errno
import re

from .errors import one_line

_FULL = (errno.ENOSPC, errno.EDQUOT)
_NOT_WRITABLE = (errno.EROFS, errno.EIO, errno.ESTALE)
_ALLOCATION = re.compile(r"can't allocate memory: you tried to allocate (\d+) bytes")
_WANTED = re.compile(r"Tried to allocate ([\d.]+ \wiB)")
_MEETING = re.compile(
    r"waiting for clients\. (\d+)/(\d+) clients joined|timed out after .* trying to connect to (\(.*\))"
)
_LESS = (
    "allowed: a smaller data.tokens_per_batch (with trainer.accumulate_grad_batches as much more), "
    "data.eval_tokens_per_batch in a validation, trainer.precision bf16-mixed, a tuning that trains fewer weights"
)


def machine_fault(error: BaseException) -> str | None:
    """Returns the line about an error that the machine caused; None for other errors."""
    text = one_line(error)
    if type(error).__name__ == "OutOfMemoryError" or "CUDA error: out of memory" in text:
        wanted = _WANTED.search(text)
        return f"the GPU's memory is full{f' ({wanted[1]} more were asked for)' if wanted else ''}; {_LESS}"
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "can't allocate memory" in text):
        asked = _ALLOCATION.search(text)
        return f"memory is full{f' ({int(asked[1]):,} bytes more were asked for)' if asked else ''}; {_LESS}"
    if type(error).__name__ in ("DistStoreError", "DistNetworkError") and (met := _MEETING.search(text)):
        came = f"{met[1]} of {met[2]} came in time" if met[1] else f"there is none at {met[3]}"
        return f"the ranks did not find each other: {came}; the last lines of the other ranks may say why"
    if isinstance(error, OSError) and error.errno in (*_FULL, *_NOT_WRITABLE):
        where = f"{error.filename}: " if error.filename else ""
        remedy = "room on this disk" if error.errno in _FULL else "a disk that can be written to"
        return f"{where}{error.strerror}; allowed: {remedy}, and then the same command again"
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return f"{text}; allowed: more open files (`ulimit -n 65536`), fewer data.num_workers"
    return None
