"""jsonargparse's error texts as one line: which key, what is wrong, what is allowed.

jsonargparse explains a bad value by the tree of all types that it tried: up to twenty lines for a misspelt option of a
callback. The one leaf that matters is found here by its wording; a wording that is not known is shown as it is, on one
line.
"""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import Any

MOST_SHOWN = 40
TYPE_NAMES = {"NoneType": "null", "PathLike": "path", "float": "number"}
NUMBERS = {"float", "int"}


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
    return " ".join(re.sub(r'Parser key "([^"]+)":', r"\1:", message).split())


def allowed(given: str, names: Iterable[str]) -> str:
    """``(did you mean 'x'?); allowed: x, y, z``: what may stand in place of ``given``."""
    choices = sorted(set(names))
    near = get_close_matches(given, choices, n=1)
    hint = f" (did you mean '{near[0]}'?)" if near else ""
    if not choices or (near and len(choices) > MOST_SHOWN):
        return hint
    return f"{hint}; allowed: {', '.join(choices)}"


def option_names(owner: type) -> Iterator[str]:
    """The arguments of a class, with those of its bases where it passes ``**kwargs`` on."""
    for base in owner.__mro__:
        if "__init__" not in vars(base) or base is object:
            continue
        parameters = list(inspect.signature(vars(base)["__init__"]).parameters.values())[1:]
        yield from (p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY))
        if all(p.kind is not p.VAR_KEYWORD for p in parameters):
            return


def _key(message: str) -> str:
    """The dotted key: ``trainer.callbacks`` and, inside a class, its option."""
    return ".".join(re.findall(r'Parser key "([^"]+)":', message))


def _imported(path: str) -> type | None:
    module, _, name = path.rpartition(".")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        return None


def _bad_option(message: str, roots: Mapping[str, type]) -> str | None:
    found = re.search(r"Option '([^']+)' is not accepted", message)
    if not found:
        return None
    path = re.findall(r"(?:given class_path |class_path=)'([^']+)'", message[: found.start()] or message)
    path = path or re.findall(r"class_path='([^']+)'", message)
    owner = _imported(path[-1]) if path else None
    name = found[1].split(".")[0]
    if owner is None:
        return f"{_key(message)}: no option '{name}'"
    names = [*option_names(owner), *(["init_args"] if name.startswith("init_a") else [])]
    return f"{_key(message)}: {owner.__name__} has no option '{name}'{allowed(name, names)}"


def _unknown_key(key: str, roots: Mapping[str, type]) -> str:
    root, _, rest = key.partition(".")
    name = rest.split(".")[0]
    if root in roots and name:
        return f"{root} has no option '{name}'{allowed(name, option_names(roots[root]))}"
    return f"no option '{root}'{allowed(root, [*roots, 'seed_everything', 'ckpt_path', 'config'])}"


def _bad_root_option(message: str, roots: Mapping[str, type]) -> str | None:
    found = re.search(r"Subcommand '\w+' does not accept option '([^']+)'", message)
    return _unknown_key(found[1], roots) if found else None


def _bad_flag(message: str, roots: Mapping[str, type]) -> str | None:
    found = re.search(r"unrecognized arguments: (\S+)(.*)", message, re.DOTALL)
    if not found:
        return None
    if not found[1].startswith("-"):
        return f"unexpected argument '{found[1]}'; options begin with --"
    return _unknown_key(found[1].lstrip("-").split("=")[0].removesuffix("+"), roots)


def _unset_class(message: str, roots: Mapping[str, type]) -> str | None:
    """An option on the command line before the class that it is of."""
    found = re.search(r"is abstract.*NestedArg\(key='([^']+)'", message, re.DOTALL)
    key = _key(message)
    return f"{key}.{found[1]}: no class is chosen yet; allowed: after --{key} CLASS" if found else None


def _unimportable(message: str, roots: Mapping[str, type]) -> str | None:
    """A class whose module is not there, or fails when it is imported: that reason, and no list of other classes."""
    named = re.findall(r"class_path(?:=|': ?| )'([\w.]+)'", message)
    if "No module named" in message:
        named += re.findall(r"(?:Got|Given) value: ([A-Za-z_][\w.]*\.\w+)\s*$", message)
    for path in reversed(named):
        module = path.rpartition(".")[0]
        try:
            import_module(module) if module else None
        except Exception as error:  # whatever a module does when it is imported
            reason = " ".join(str(error).split()) or type(error).__name__
            return f"{_key(message)}: {path} cannot be imported: {reason}"
    return None


def _bad_class(message: str, roots: Mapping[str, type]) -> str | None:
    found = re.search(r"Expected a dot import path string: (\S+)|module '\S+' has no attribute '(\w+)'", message)
    if not found or NUMBERS & set(_expected(_innermost(message))):
        return None
    name = found[1] or found[2]
    names = {c.__name__ for base in _classes(_hint(message, roots)) for c in _concrete(base)}
    return f"{_key(message)}: no class '{name}'{allowed(name, names)}"


def _wrong_class(message: str, roots: Mapping[str, type]) -> str | None:
    found = re.search(r"Import path (\S+) does not correspond to a subclass of (\w+)", message)
    if not found:
        return None
    names = {c.__name__ for base in _classes(_hint(message, roots)) for c in _concrete(base)}
    return f"{_key(message)}: {found[1]} is no {found[2]}{allowed(found[1], names)}"


def _missing(message: str, roots: Mapping[str, type]) -> str | None:
    found = re.search(r"the following arguments are required: (.+)", message)
    if not found:
        return None
    if inside := re.search(r"given class_path '(?:[\w.]+\.)?(\w+)':\s*$", message[: found.start()]):
        return f"{_key(message)}: {inside[1]} needs {found[1]}"
    keys = [re.sub(r"^(fit|validate|test|predict)\.", "", key) for key in found[1].split(", ")]
    return f"missing: {', '.join(keys)}"


def _bad_value(message: str, roots: Mapping[str, type]) -> str | None:
    last = _innermost(message)
    given = re.search(r"Given value: (.*)|Got value: (.*)", last)
    if not given:
        return None
    head = last[: given.start()]
    choices = re.findall(r"typing\.Literal\[([^\]]+)\]", head)
    values = [v.strip().strip("'") for choice in choices for v in choice.split(",")]
    types = _expected(head)
    if NUMBERS & set(types):  # a number may also be a tensor, or come from a file: nobody means that
        types = [name for name in types if name not in ("dot", "path", "Tensor")]
    names = [TYPE_NAMES.get(name, name) for name in types]
    wanted = list(dict.fromkeys([*values, *(n for n in names if not values or n == "null")]))
    if not wanted:
        return None
    value = (given[1] or given[2]).split(". Got value: ")[0].strip()  # what follows is the class around it
    return f"{_key(message)}: {value!r} does not fit; allowed: {', '.join(wanted)}"


RULES = (
    *(_bad_option, _bad_root_option, _bad_flag, _unset_class, _unimportable),
    *(_bad_class, _wrong_class, _missing, _bad_value),
)
"""In the order in which they are tried."""


def _innermost(message: str) -> str:
    """What is said of the key that lies deepest."""
    return message[max(message.rfind('Parser key "'), 0) :]


def _expected(text: str) -> list[str]:
    """The types that were tried."""
    types = re.findall(r"(?:Expected an? |subclass of )(?:<class ')?([\w.]+)(?:'>)?", text)
    return [name for t in types if (name := t.rsplit(".")[-1]) not in ("typing", "Literal")]


def _hint(message: str, roots: Mapping[str, type]) -> Any:
    """The annotation of the key in question: ``model.encoder``, or an argument of the class that stands around it."""
    root, _, name = _key(message).partition(".")
    around = re.findall(r"given class_path '([\w.]+)':\s*Parser key \"(\w+)\"", message)
    if around and (owner := _imported(around[-1][0])) is not None:
        return typing.get_type_hints(owner.__init__).get(around[-1][1])  # type: ignore[misc]
    if root not in roots:
        return None
    return typing.get_type_hints(roots[root].__init__).get(name.split(".")[0])  # type: ignore[misc]


def _classes(hint: Any) -> Iterator[type]:
    """The classes inside an annotation: ``list[Callback] | Callback | None`` gives ``Callback``."""
    if isinstance(hint, type) and not typing.get_args(hint):
        yield hint
    for part in typing.get_args(hint):
        if not isinstance(part, list):
            yield from _classes(part)


def _concrete(base: type) -> Iterator[type]:
    """The public classes that may stand for ``base``."""
    if base.__module__ == "builtins":
        return
    if not inspect.isabstract(base) and not base.__name__.startswith("_"):
        yield base
    children: list[type] = base.__subclasses__()
    for child in children:
        yield from _concrete(child)
