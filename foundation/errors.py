"""The errors that speak to the user, and the exit codes of a process."""

from __future__ import annotations

FAILED = 1
"""Exit code of a run that could not go on."""

USAGE_ERROR = 2
"""Exit code of wrong arguments and unusable input, as argparse uses it."""

INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 + SIGINT, the convention of shells."""

TERMINATED = 143
"""Exit code after SIGTERM."""


class UserError(ValueError):
    """What the user gave cannot be used: a setting, a file, a folder. The text says what, where and what is allowed."""


class RunError(RuntimeError):
    """A run cannot go on: the disk is full, a loss is not finite. The text says what, where and how to continue.

    It is raised on all ranks alike.
    """


class MachineError(RuntimeError):
    """What the machine did to a run: a process was killed or hangs, or memory, shared memory or open files ran out.

    The text says what it was and what can be done.
    """
