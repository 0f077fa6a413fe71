"""Attempts that start as a fork of this process, which has imported everything: that saves five seconds of CPU each."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

from textkeep.cli.main import main

IMPORTED = ("textkeep.cli.training_verbs", "textkeep.inference.yaml_classes", "torch.distributed", "transformers")


class ForkedProcess:
    """A fork that runs ``textkeep`` with these arguments; wait for it as for a ``subprocess.Popen``.

    Args:
        words: The command line, from the verb on.
        environment: Additional environment variables.
        log: File that its output is appended to.
    """

    def __init__(self, words: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        for name in IMPORTED:
            importlib.import_module(name)
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            _become(words, environment, log)

    def poll(self) -> int | None:
        """Returns the exit code, negative for a signal; None while it runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Waits for the exit code.

        Raises:
            subprocess.TimeoutExpired: If it runs longer.
        """
        limit = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if limit is not None and time.monotonic() > limit:
                raise subprocess.TimeoutExpired("textkeep", timeout or 0.0)
            time.sleep(0.001)
        return code


def _become(words: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
    """Turns the fork into its own process, which ends here."""
    code = 1
    try:
        os.setsid()
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        for number in (1, 2):
            os.dup2(output, number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ.update(environment)
        sys.argv = [str(Path(sys.executable).with_name("textkeep")), *words]
        code = main(list(words))
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
