"""Finds the private names of other libraries that the package uses."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import textkeep.foundation

ROOT = Path(textkeep.foundation.__file__).parents[1]
ROOMS = (
    "callbacks",
    "cli",
    "datamodules",
    "evaluation",
    "foundation",
    "importance",
    "inference",
    "lightning_modules",
    "planning",
    "preparation",
    "runs",
)
#: What the documentation of ``collections.namedtuple`` names.
PUBLIC = {"_asdict", "_fields", "_make", "_replace"}
_PRIVATE = re.compile(r"_[A-Za-z]\w*")
_BY_STRING = {"getattr", "setattr", "hasattr", "delattr"}


def is_private(name: str) -> bool:
    return bool(_PRIVATE.fullmatch(name)) and name not in PUBLIC


def files() -> dict[str, ast.Module]:
    """Path below the root -> what it holds, of every file of the rooms."""
    paths = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
    return {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in paths}


def defined(tree: ast.AST) -> set[str]:
    """Names that a file or class gives: functions, classes, variables, and attributes of ``self`` and ``cls``."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _is_own(node.value):
            found.add(node.attr)
    return found


def _is_own(node: ast.AST) -> bool:
    """Whether an expression is the object that the code belongs to."""
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id == "super"
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def _named(node: ast.AST) -> Iterator[tuple[str, bool]]:
    """Private names that a node asks of something, and whether it asks the object that the code belongs to."""
    if isinstance(node, ast.Attribute):
        yield node.attr, _is_own(node.value)
    elif isinstance(node, ast.Import):
        yield from ((part, False) for alias in node.names for part in alias.name.split("."))
    elif isinstance(node, ast.ImportFrom) and not node.level:
        for name in (*(node.module or "").split("."), *(alias.name for alias in node.names)):
            yield name, False
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _BY_STRING:
        if len(node.args) > 1 and isinstance(node.args[1], ast.Constant):
            yield str(node.args[1].value), False
    elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
        yield str(node.slice.value), False


def asked_of_others() -> set[tuple[str, str]]:
    """(file, name) of the private names that no class of ours gives.

    What is asked of ``self`` may come from a class in another file; what is asked of another object, from this file.
    """
    trees = files()
    names = {path: defined(tree) for path, tree in trees.items()}
    everywhere = set().union(*names.values())
    found = set()
    for path, tree in trees.items():
        here = names[path]
        for node in ast.walk(tree):
            for name, own in _named(node):
                if is_private(name) and name not in (everywhere if own else here):
                    found.add((path, name))
    return found


def overridden() -> set[tuple[str, str]]:
    """(file, name) of the private names that a class of ours gives and a library's class below it has too."""
    found = set()
    for path, tree in files().items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.ClassDef) or not node.bases:
                continue
            names = {name for name in defined(node) if is_private(name)}
            if not names:  # the module need not be imported
                continue
            module = importlib.import_module(f"textkeep.{path.removesuffix('.py').replace('/', '.')}")
            kind = getattr(module, node.name, None)
            bases = kind.__mro__ if inspect.isclass(kind) else ()
            libraries = [base for base in bases if not base.__module__.startswith(("textkeep.", "builtins"))]
            found |= {(path, name) for name in names if any(has(base, name) for base in libraries)}
    return found


def resolve(dotted: str) -> Any:
    """A module, or a class or function in one."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        name = ".".join(parts[:length])
        try:
            value: Any = importlib.import_module(name)
        except ModuleNotFoundError:
            continue
        return functools.reduce(getattr, parts[length:], value)
    raise ModuleNotFoundError(dotted)


def is_installed(dotted: str) -> bool:
    return find_spec(dotted.split(".", 1)[0]) is not None


def has(owner: Any, name: str) -> bool:
    """Whether a module or class gives a name: as an attribute, or as one that its code sets on its objects."""
    if not inspect.isclass(owner):
        return hasattr(owner, name)
    return any(name in vars(kind) or name in _sets(kind) for kind in owner.__mro__)


@functools.cache
def _sets(kind: type) -> set[str]:
    """Attributes that the code of a class sets, on ``self`` or by their names; none where it is not Python."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    except (OSError, TypeError):
        return set()
    nodes = list(ast.walk(tree))
    stored = {n.attr for n in nodes if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)}
    return stored | {n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)}
