"""Announces what a command is loading when loading starts."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from typing import Any

LARGE = "torch"
"""The library whose import marks the start: all other large ones need it."""


class Announcer(MetaPathFinder):
    """A finder that finds nothing but announces once what is being loaded, when :data:`LARGE` is imported.

    Args:
        loads: What to name.
    """

    def __init__(self, loads: str) -> None:
        self._loads = loads

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Leaves the module to the other finders."""
        if fullname == LARGE and self._loads:
            print(f"loading {self._loads} ...", file=sys.stderr, flush=True)
            self._loads = ""
        return None


@contextmanager
def announcing(loads: str) -> Generator[None, None, None]:
    """Announces on standard error what is being loaded within the context; only on the first rank.

    Args:
        loads: What to name: the libraries that come with :data:`LARGE`.
    """
    first = all(os.environ.get(rank, "0") == "0" for rank in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))
    announcer = Announcer(loads if first else "")
    sys.meta_path.insert(0, announcer)
    try:
        yield
    finally:
        sys.meta_path.remove(announcer)
