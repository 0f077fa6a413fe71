"""The available estimators: the built-in ones and those that others add."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib import import_module
from types import MappingProxyType

from .spec import Spec

_registered: dict[str, Spec] = {}
ESTIMATORS: Mapping[str, Spec] = MappingProxyType(_registered)
"""Name -> estimator, in the order in which they were registered; :func:`register` adds one."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


def register(name: str, spec: Spec) -> None:
    """Adds an estimator under a name that is then accepted wherever estimators are.

    A module may be reloaded and register it again; the last registration counts.

    Args:
        name: Part of file names and metric keys.
        spec: How it scores and what it needs.

    Raises:
        ValueError: If the name cannot be part of a file name or key, or belongs to another estimator.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"importance: estimator {name!r} cannot be part of a file name or metric key; allowed: up to 64 lower-case "
            "letters, digits and _, a letter first"
        )
    known = _registered.get(name)
    if known is not None and _origin(known) != _origin(spec):
        raise ValueError(f"importance: there is another estimator {name} already: {known.formula}; choose another name")
    _registered[name] = spec


def _origin(spec: Spec) -> tuple[object, ...]:
    """Returns what two registrations of one estimator share, even after its module was reloaded."""
    scores = [type(score) for score in (spec.block, spec.batch, spec.forward)]
    return (spec.formula, spec.labels, spec.signed, *((kind.__module__, kind.__qualname__) for kind in scores))


def checked(estimators: Sequence[str] | str, where: str = "importance") -> tuple[str, ...]:
    """Returns the estimators' names, each once, in the order given.

    Args:
        estimators: Names; ``module:name`` imports a module that registers the estimator.
        where: For the error message.

    Raises:
        ValueError: For an unknown name, a module that cannot be imported, or an empty list.
    """
    given = (estimators,) if isinstance(estimators, str) else estimators
    names = tuple(dict.fromkeys(_imported(name, where) for name in given))
    unknown = [name for name in given if name.rpartition(":")[2] not in ESTIMATORS]
    if unknown or not names:
        shown = ", ".join(unknown) or "nothing"
        modules = [name.rpartition(":")[0] for name in unknown if ":" in name]
        why = f" ({modules[0]} was imported and registers none of that name)" if modules else ""
        raise ValueError(f"{where}: unknown estimator {shown}{why}; allowed: {', '.join(ESTIMATORS)}")
    return names


def _imported(name: str, where: str) -> str:
    """Imports the module in front of a name, if there is one, and gives the name alone."""
    module, colon, plain = name.rpartition(":")
    if not colon:
        return name
    try:
        import_module(module)
    except Exception as error:  # a user's module may raise anything
        kind = "" if isinstance(error, ImportError | ValueError) else f"{type(error).__name__}: "
        raise ValueError(f"{where}: estimator {name}: {module!r} cannot be imported: {kind}{error}") from error
    return plain
