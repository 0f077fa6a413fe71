"""Public names of a package that are imported on first use, so that one part does not wait for imports of others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from types import ModuleType
from typing import Any


def from_modules(package: str, public: Mapping[str, str]) -> Callable[[str], Any]:
    """Builds the ``__getattr__`` of a package whose names are defined in its modules.

    Args:
        package: Its ``__name__``.
        public: Name to module, the module relative to the package.
    """

    def getattribute(name: str) -> Any:
        if name not in public:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f".{public[name]}", package), name)

    return getattribute


def from_folders(package: str, *folders: ModuleType) -> Callable[[str], Any]:
    """Builds the ``__getattr__`` of a package that exposes the public names of its folders.

    Args:
        package: Its ``__name__``.
        folders: Packages with ``__all__``.
    """
    owner = {name: folder for folder in folders for name in folder.__all__}

    def getattribute(name: str) -> Any:
        if name not in owner:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(owner[name], name)

    return getattribute
