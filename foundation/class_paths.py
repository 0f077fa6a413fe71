"""Why a class that a config or a checkpoint names by its full path cannot be imported."""

from __future__ import annotations

import inspect
import re
import traceback
from collections.abc import Iterable
from difflib import get_close_matches
from importlib import import_module
from types import ModuleType

MOST_SHOWN = 40
_WHOLE_PATH = re.compile(r"class_path['\"]?(?:: |=| )'(\w+(?:\.\w+)+)'")
"""How jsonargparse refers to a class by its path."""


def allowed(given: str, names: Iterable[str], word: str = "allowed") -> str:
    """Returns ``(did you mean 'x'?); allowed: x, y, z``: the alternatives to ``given``."""
    choices = sorted(set(names))
    near = get_close_matches(given, choices, n=1)
    hint = f" (did you mean '{near[0]}'?)" if near else ""
    if not choices or (near and len(choices) > MOST_SHOWN):
        return hint
    return f"{hint}; {word}: {', '.join(choices)}"


def problem_in(message: str) -> str | None:
    """Explains why the first class named by its path in a jsonargparse message cannot be imported.

    Returns:
        None if all of them can.
    """
    problems = (import_problem(path) for path in dict.fromkeys(_WHOLE_PATH.findall(message)))
    return next((problem for problem in problems if problem), None)


def import_problem(path: str) -> str | None:
    """Explains in one line why ``module.Class`` cannot be imported: by its own error, or by what the module has.

    Args:
        path: A dotted path; the module part may be followed by nested class names.

    Returns:
        None if it can be imported.
    """
    parts = path.split(".")
    for length in range(len(parts) - 1, 0, -1):
        name = ".".join(parts[:length])
        try:
            module = import_module(name)
            return _missing(module, parts[length:])
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                return f"{path} cannot be imported: {place(error)}: {_reason(error)}"
        except Exception as error:  # a user's module may raise anything
            return f"{path} cannot be imported: {place(error)}: {_reason(error)}"
    return f"{path} cannot be imported: No module named '{parts[0]}' (is the folder that holds it on PYTHONPATH?)"


def place(error: BaseException) -> str:
    """Returns ``file:line`` of where an error came up; of a syntax error, where it stands."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith("<frozen ")]
    return f"{frames[-1].filename}:{frames[-1].lineno}"


def _reason(error: Exception) -> str:
    said = " ".join(str(error.msg if isinstance(error, SyntaxError) else error).split())
    return said if isinstance(error, ImportError) else f"{type(error).__name__}: {said}".rstrip(": ")


def _missing(module: ModuleType, names: Iterable[str]) -> str | None:
    found: object = module
    for name in names:
        if not hasattr(found, name):
            return (
                f"{getattr(found, '__name__', module.__name__)} has no '{name}'{allowed(name, _shown(found), 'it has')}"
            )
        found = getattr(found, name)
    return None


def _shown(holder: object) -> list[str]:
    """Returns a module's public names: its ``__all__``, or the classes that it defines, or everything."""
    if listed := getattr(holder, "__all__", None):
        return list(listed)
    public = {name: value for name, value in vars(holder).items() if not name.startswith("_")}
    own = getattr(holder, "__name__", None)
    classes = [name for name, value in public.items() if inspect.isclass(value) and value.__module__ == own]
    return classes or list(public)
