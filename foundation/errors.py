"""Errors that are addressed to the user, and the exit codes of a process."""

from __future__ import annotations

FAILED = 1
"""Exit code of a run that could not continue."""

USAGE_ERROR = 2
"""Exit code of wrong arguments and unusable input, as argparse uses it."""

INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 + SIGINT, the convention of shells."""

TERMINATED = 143
"""Exit code after SIGTERM."""


class UserError(ValueError):
    """The user's input (a setting, a file, a folder) is unusable. The message says what, where and what is allowed."""


class RunError(RuntimeError):
    """A run cannot continue: the disk is full, a loss is not finite. The message says what, where and how to continue.

    It is raised on all ranks alike.
    """


class MachineError(RuntimeError):
    """A fault of the machine: a process was killed or hangs, or memory, shared memory or open files ran out.

    The message says what happened and what can be done.
    """
