"""jsonargparse's error messages in one line: which key, what is wrong, what is allowed.

jsonargparse explains a bad value by the tree of all types that it tried: up to twenty lines for a misspelt option of a
callback. Only the innermost message is shown; where it does not say what is allowed, a rule here does.
"""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

from ..foundation.class_paths import allowed, problem_in
from .errors import REFUSAL

TYPE_NAMES = {"NoneType": "null", "PathLike": "path", "float": "number"}
NUMBERS = {"float", "int"}
KEY = re.compile(r'Parser key "([^"]+)":')
CLASS_PATH = re.compile(r"(?:given class_path |class_path=)'([^']+)'")
NO_SUBCLASS = re.compile(r"Import path (\S+) does not correspond to a subclass of (\w+)")
CALLABLE = re.compile(r"expects a function or a callable class:\s*(.+?)\. Got value: Namespace", re.DOTALL)
"""Its message about an optimizer that cannot be instantiated."""
FUNCTION = re.compile(r"Expected '([^']+)' to be a function that returns <class '(?:[\w.]+\.)?(\w+)'>")
"""Its message about one that a function would return."""


def explain(message: str, roots: Mapping[str, type]) -> str:
    """Rewrites a message of jsonargparse.

    Args:
        message: What ``ArgumentParser.error`` was called with.
        roots: The class behind each top-level key (``trainer``, ``model``, ``data``), for the allowed names.

    Returns:
        One line.
    """
    for rule in RULES:
        if line := rule(message, roots):
            return line
    return " ".join(KEY.sub(r"\1:", message).split())


def option_names(owner: type) -> Iterator[str]:
    """Yields the arguments of a class, with those of its bases where it passes ``**kwargs`` on."""
    for base in owner.__mro__:
        if "__init__" not in vars(base) or base is object:
            continue
        parameters = list(inspect.signature(vars(base)["__init__"]).parameters.values())[1:]
        yield from (p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY))
        if all(p.kind is not p.VAR_KEYWORD for p in parameters):
            return


def _key(message: str) -> str:
    """Returns the dotted key: ``trainer.callbacks`` and, inside a class, its option."""
    return ".".join(KEY.findall(message))


def _bad_root_option(message: str, roots: Mapping[str, type]) -> str | None:
    """Explains an option that no class of a config has, in a file or as a flag."""
    found = re.search(r"^Group '(\w+)' does not accept option '(\w+)", message)
    found = found or re.search(r"^(?:Option '|unrecognized arguments: --)(\w+)(?:\.(\w+))?", message)
    if found is None:
        return None
    root, name = found.groups()
    if root in roots and name:
        return f"{root} has no option '{name}'{allowed(name, option_names(roots[root]))}"
    return f"no option '{root}'{allowed(root, [*roots, 'seed_everything', 'ckpt_path', 'config'])}"


def _bad_option(message: str, roots: Mapping[str, type]) -> str | None:
    """Explains an option that a class of a config does not have."""
    found = re.search(r"Option '(\w+)[^']*' is not accepted", message)
    path = CLASS_PATH.findall(message[: found.start()]) or CLASS_PATH.findall(message) if found else []
    owner = _imported(path[-1]) if path else None
    if found is None or owner is None:
        return None
    names = [*option_names(owner), *(["init_args"] if found[1].startswith("init_a") else [])]
    return f"{_key(message)}: {owner.__name__} has no option '{found[1]}'{allowed(found[1], names)}"


def _unimportable(message: str, roots: Mapping[str, type]) -> str | None:
    """Explains why a class named by its full path cannot be used, whatever else was tried in its place."""
    problem = problem_in(message)
    return problem and f"{_key(message)}: {problem}"


def _no_subclass(message: str, roots: Mapping[str, type]) -> str | None:
    """Explains an import path that leads to an object of the wrong kind."""
    found = NO_SUBCLASS.search(message)
    return f"{_key(message)}: {found[1]} is not a subclass of {found[2]}" if found else None


def _unset_class(message: str, roots: Mapping[str, type]) -> str | None:
    """Explains a command-line option that comes before the class that has it."""
    found = re.search(r"is abstract.*NestedArg\(key='([^']+)'", message, re.DOTALL)
    key = _key(message)
    return f"{key}.{found[1]}: no class is chosen yet; allowed: after --{key} CLASS" if found else None


def _bad_class(message: str, roots: Mapping[str, type]) -> str | None:
    """Explains a class that does not exist."""
    found = re.search(r"Expected a dot import path string: (\S+)|module '\S+' has no attribute '(\w+)'", message)
    if not found or NUMBERS & set(_expected(_innermost(message))):
        return None
    name = found[1] or found[2]
    names = {c.__name__ for base in _classes(_hint(message, roots)) for c in _concrete(base)}
    return f"{_key(message)}: no class '{name}'{allowed(name, names)}"


def _refused(message: str, roots: Mapping[str, type]) -> str | None:
    """Explains why a class cannot be imported or instantiated, without the other types that were tried."""
    found = REFUSAL.findall(message)
    if found and not found[-1][1].startswith("Parser key"):
        return f"{_key(message)}: {found[-1][0]}: {' '.join(found[-1][1].split())}"
    made = CALLABLE.search(message)
    return f"{_key(message)}: {made[1]}" if made and not made[1].startswith("Parser key") else None


def _other_function(message: str, roots: Mapping[str, type]) -> str | None:
    """Tells of a function in the place of a class that is not annotated as one that makes it."""
    found = FUNCTION.search(message)
    if found is None:
        return None
    wanted = f"a class of that kind, or a function whose annotation says that it returns one (-> {found[2]})"
    return f"{_key(message)}: {found[1]} is not annotated as one that returns {found[2]}; allowed: {wanted}"


def _bad_value(message: str, roots: Mapping[str, type]) -> str | None:
    """Explains a value of the wrong type, or one that is not among the choices."""
    last = _innermost(message)
    given = re.search(r"Given value: (.*)|Got value: (.*)", last)
    if not given:
        return None
    head = last[: given.start()]
    choices = re.findall(r"typing\.Literal\[([^\]]+)\]", head)
    values = [v.strip().strip("'") for choice in choices for v in choice.split(",")]
    types = _expected(head)
    if NUMBERS & set(types):  # a number may also be a tensor or come from a file, which nobody means
        types = [name for name in types if name not in ("dot", "path", "Tensor")]
    names = [TYPE_NAMES.get(name, name) for name in types]
    wanted = list(dict.fromkeys([*values, *(n for n in names if not values or n == "null")]))
    if not wanted:
        return None
    value = (given[1] or given[2]).split(". Got value: ")[0].strip()  # what follows is the enclosing class
    return f"{_key(message)}: {value!r} does not fit; allowed: {', '.join(wanted)}"


RULES = (
    _unimportable,
    _bad_root_option,
    _bad_option,
    _unset_class,
    _bad_class,
    _no_subclass,
    _refused,
    _other_function,
    _bad_value,
)
"""In the order in which they are tried."""


def _innermost(message: str) -> str:
    """Returns the message about the innermost key."""
    return message[max(message.rfind('Parser key "'), 0) :]


def _expected(text: str) -> list[str]:
    """Returns the types that were tried."""
    types = re.findall(r"Expected an? (?:<class ')?([\w.]+)(?:'>)?", text)
    return [name for t in types if (name := t.rsplit(".")[-1]) not in ("typing", "Literal")]


def _imported(path: str) -> type | None:
    module, _, name = path.rpartition(".")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        return None


def _hint(message: str, roots: Mapping[str, type]) -> Any:
    """Returns the annotation of a key: ``model.encoder``, or an argument of the enclosing class."""
    root, _, name = _key(message).partition(".")
    around = re.findall(r"given class_path '([\w.]+)':\s*Parser key \"(\w+)\"", message)
    if around and (owner := _imported(around[-1][0])) is not None:
        return typing.get_type_hints(owner.__init__).get(around[-1][1])  # type: ignore[misc]
    if root not in roots:
        return None
    return typing.get_type_hints(roots[root].__init__).get(name.split(".")[0])  # type: ignore[misc]


def _classes(hint: Any) -> Iterator[type]:
    """Yields the classes inside an annotation: ``Callback`` for ``list[Callback] | Callback | None``."""
    if isinstance(hint, type) and not typing.get_args(hint):
        yield hint
    for part in typing.get_args(hint):
        if not isinstance(part, list):
            yield from _classes(part)


def _concrete(base: type) -> Iterator[type]:
    """Yields the public classes that may stand for ``base``."""
    if base.__module__.split(".")[0] in ("builtins", "jsonargparse"):
        return
    if not inspect.isabstract(base) and not base.__name__.startswith("_"):
        yield base
    children: list[type] = base.__subclasses__()
    for child in children:
        yield from _concrete(child)
