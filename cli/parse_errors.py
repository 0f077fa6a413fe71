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
TYPE_NAMES = {"NoneType": "null", "PathLike": "path"}


def explain(message: str, roots: Mapping[str, type]) -> str:
    """Rewrites a message of jsonargparse.

    Args:
        message: What ``ArgumentParser.error`` was called with.
        roots: The class behind each top-level key (``trainer``, ``model``, ``data``), for the allowed names.

    Returns:
        One line.
    """
    for rule in (_bad_option, _bad_root_option, _bad_flag, _bad_class, _wrong_class, _missing, _bad_value):
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


def _bad_class(message: str, roots: Mapping[str, type]) -> str | None:
    found = re.search(r"Expected a dot import path string: (\S+)|module '\S+' has no attribute '(\w+)'", message)
    found = found or re.search(r"No module named '[^']+'.*? Got value: (\S+)|No module named '([^']+)'", message)
    if not found:
        return None
    name = found[1] or found[2]
    names = {c.__name__ for base in _classes(_hint(_key(message), roots)) for c in _concrete(base)}
    return f"{_key(message)}: no class '{name}'{allowed(name, names)}"


def _wrong_class(message: str, roots: Mapping[str, type]) -> str | None:
    found = re.search(r"Import path (\S+) does not correspond to a subclass of (\w+)", message)
    if not found:
        return None
    names = {c.__name__ for base in _classes(_hint(_key(message), roots)) for c in _concrete(base)}
    return f"{_key(message)}: {found[1]} is no {found[2]}{allowed(found[1], names)}"


def _missing(message: str, roots: Mapping[str, type]) -> str | None:
    found = re.search(r"the following arguments are required: (.+)", message)
    if not found:
        return None
    keys = [re.sub(r"^(fit|validate|test|predict)\.", "", key) for key in found[1].split(", ")]
    return f"missing: {', '.join(keys)}"


def _bad_value(message: str, roots: Mapping[str, type]) -> str | None:
    last = message[message.rfind('Parser key "') :]
    given = re.search(r"Giv?en value: (.*)|Got value: (.*)", last)
    if not given:
        return None
    head = last[: given.start()]
    choices = re.findall(r"typing\.Literal\[([^\]]+)\]", head)
    values = [v.strip().strip("'") for choice in choices for v in choice.split(",")]
    types = re.findall(r"(?:Expected an? |subclass of )(?:<class ')?([\w.]+)(?:'>)?", head)
    names = [TYPE_NAMES.get(n, n) for t in types if (n := t.rsplit(".")[-1]) not in ("typing", "Literal")]
    wanted = list(dict.fromkeys([*values, *(n for n in names if not values or n == "null")]))
    if not wanted:
        return None
    return f"{_key(message)}: {(given[1] or given[2]).strip()!r} does not fit; allowed: {', '.join(wanted)}"


def _hint(key: str, roots: Mapping[str, type]) -> Any:
    """The annotation of ``model.encoder`` and its like, or None."""
    root, _, name = key.partition(".")
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
