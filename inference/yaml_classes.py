"""The classes that a config may name."""

from __future__ import annotations

from .. import callbacks, datamodules, lightning_modules


def register_classes() -> None:
    """Imports the public classes, so that a config may name them without their module."""
    for package in (lightning_modules, datamodules, callbacks):
        for name in package.__all__:
            getattr(package, name)
