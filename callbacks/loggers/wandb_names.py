"""The metrics of a W&B run, and their x axis."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...foundation.run_names import STEP_METRIC
from .wandb_failures import is_of_wandb

MANY_NAMES = 32
"""From here on new names are defined in the background: each is a round trip to the process of W&B."""


class MetricNames:
    """The names that a run knows; where a row brings many new ones, they are defined while training goes on."""

    def __init__(self) -> None:
        self._known: set[str] = set()
        self._defining: threading.Thread | None = None

    def define_around(self, run: Any, metrics: Mapping[str, Any], log: Callable[[], None]) -> None:
        """Logs a row, and has its new names drawn over the optimizer step.

        Args:
            run: Of W&B.
            metrics: The row.
            log: Logs it.
        """
        self.wait()
        fresh = [name for name in metrics if name not in self._known]
        if len(fresh) < MANY_NAMES:
            _define(run, fresh)
        log()
        if len(fresh) >= MANY_NAMES:
            # After the row: `*` has given it its step already. Not a daemon: the interpreter waits for it.
            self._defining = threading.Thread(target=_define_if_alive, args=(run, fresh))
            self._defining.start()
        self._known.update(fresh)

    def wait(self) -> None:
        """Waits for names that are still being defined."""
        if self._defining is not None:
            self._defining.join()
            self._defining = None

    def forget(self) -> None:
        """Forgets all names: another run takes the place of this one."""
        self._known = set()


def _define(run: Any, names: Sequence[str]) -> None:
    """Tells W&B that metrics are drawn over the optimizer step."""
    for name in names:
        # An unescaped dot would mean a nested value.
        run.define_metric(name.replace(".", r"\."), step_metric=STEP_METRIC, step_sync=True)


def _define_if_alive(run: Any, names: Sequence[str]) -> None:
    """Does the same while W&B's process may end at any moment."""
    try:
        _define(run, names)
    except Exception as error:  # its process was lost, or the run ended: the next call finds out
        if not is_of_wandb(error):
            raise
