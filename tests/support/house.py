"""What the rooms use of each other, read from their text: nothing is imported."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = (
    *("foundation", "importance", "evaluation", "datamodules", "lightning_modules"),
    *("callbacks", "inference", "planning", "runs", "preparation", "cli"),
)
DOTTED = re.compile(r"textkeep(?:\.[A-Za-z_]\w*)+")
WITH_FUNCTION = re.compile(r"(\.+[a-z_][\w.]*):[A-Za-z_]\w*")
RELATIVE = re.compile(r"\.+[a-z_]\w*(?:\.\w+)*")


@dataclass(frozen=True)
class Use:
    """A line of one module that needs another module.

    Attributes:
        module: Dotted name without ``textkeep``, such as ``callbacks.loggers.media``.
        line: In its file.
        target: The module that it needs; as it is written if there is none.
        exists: Whether there is one.
        imported: Whether this module, or a registry that reads the line, imports it; a class path in a config does not.
    """

    module: str
    line: int
    target: str
    exists: bool = True
    imported: bool = True


class House:
    """The modules below a folder and what they use of each other.

    Args:
        root: Holds the rooms.
        rooms: Their names.
    """

    def __init__(self, root: Path = ROOT, rooms: tuple[str, ...] = ROOMS) -> None:
        self.root = root
        self.rooms = rooms
        self.files: dict[str, Path] = {}
        for path in sorted(path for room in rooms for path in (root / room).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            self.files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path

    def uses(self) -> list[Use]:
        """Lists every use in the rooms, in order: imports wherever they stand, and names of modules in strings."""
        return [use for module, path in self.files.items() for use in self.uses_of(module, _tree(path))]

    def uses_of(self, module: str, tree: ast.Module) -> Iterator[Use]:
        """Lists the uses of one module."""
        lazy = _calls(tree, "import_module", keyword="package")
        public = {id(value) for value in _values(tree)} if _calls(tree, "from_modules") else set()
        started = {id(word) for word in _programs(tree)}
        for node in ast.walk(tree):
            line = getattr(node, "lineno", 0)
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names if alias.name.startswith("textkeep.")]
                yield from (self._use(module, line, name.removeprefix("textkeep.")) for name in names)
            elif isinstance(node, ast.ImportFrom):
                yield from self._from(module, node)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in started:
                if id(node) in public:
                    yield self._use(module, line, f"{module}.{node.value}")
                elif found := self._named(module, node.value, lazy):
                    yield Use(module, line, *found)

    def above(self, module: str, up: int) -> str | None:
        """Gives the package that ``up`` dots mean in a module; None above the house."""
        package = module if self.files[module].name == "__init__.py" else module.rpartition(".")[0]
        parts = package.split(".")
        return ".".join(parts[: len(parts) - up + 1]) if up <= len(parts) + 1 else None

    def _from(self, module: str, node: ast.ImportFrom) -> Iterator[Use]:
        name = node.module or ""
        if node.level:
            base = self.above(module, node.level)
            if base is None:
                yield Use(module, node.lineno, "." * node.level + name, exists=False)
                return
        elif name.startswith("textkeep."):
            base, name = "", name.removeprefix("textkeep.")
        else:
            return
        whole = ".".join(part for part in (base, name) if part)
        for alias in node.names:
            inner = f"{whole}.{alias.name}" if whole else alias.name
            yield self._use(module, node.lineno, inner if inner in self.files else whole)

    def _use(self, module: str, line: int, target: str) -> Use:
        return Use(module, line, target, target in self.files or (not target and (self.root / "cli").is_dir()))

    def _named(self, module: str, text: str, lazy: bool) -> tuple[str, bool, bool] | None:
        """The module that a string names, whether it exists, and whether that is an import."""
        if DOTTED.fullmatch(text) and text.split(".")[1] in self.rooms:
            return *self.nearest(text.removeprefix("textkeep.")), False
        matched = WITH_FUNCTION.fullmatch(text)
        relative = matched[1] if matched else text if lazy and RELATIVE.fullmatch(text) else None
        if relative is None:
            return None
        rest = relative.lstrip(".")
        base = self.above(module, len(relative) - len(rest))
        target = f"{base}.{rest}" if base else rest
        if target in self.files:
            return target, True, True
        return (target, False, True) if matched else None  # ".jsonl" in such a file is no module

    def nearest(self, dotted: str) -> tuple[str, bool]:
        """Gives the module of ``room.module.Class`` or ``room.Class``; the class itself is not looked for."""
        parts = dotted.split(".")
        for length in range(len(parts), max(len(parts) - 3, 0), -1):
            if (name := ".".join(parts[:length])) in self.files:
                return name, True
        return dotted, False


def climbs_out(path: Path, root: Path = ROOT) -> list[int]:
    """Lists the lines where a file reaches out of its room by ``__file__`` and ``parent`` or ``parents[n]``."""
    depth = len(path.relative_to(root).parts)
    return [
        node.lineno for node in ast.walk(_tree(path)) if isinstance(node, ast.expr) and (_climb(node) or 0) >= depth
    ]


def _climb(node: ast.expr) -> int | None:
    """How many folders an expression goes up from ``__file__``; None if it does not begin there."""
    match node:
        case ast.Name(id="__file__"):
            return 0
        case ast.Subscript(value=ast.Attribute(value=inner, attr="parents"), slice=ast.Constant(value=int(index))):
            steps = index + 1
        case ast.Attribute(value=inner, attr="parent"):
            steps = 1
        case ast.Call(func=ast.Attribute(value=inner)):  # .resolve()
            steps = 0
        case ast.Call(args=[inner]):  # Path(...)
            steps = 0
        case _:
            return None
    below = _climb(inner)
    return None if below is None else below + steps


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _calls(tree: ast.Module, function: str, keyword: str | None = None) -> bool:
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and ast.unparse(n.func).endswith(function)]
    return any(keyword is None or any(k.arg == keyword for k in call.keywords) for call in calls)


def _values(tree: ast.Module) -> list[ast.expr]:
    """The values of the dictionaries of a module."""
    return [value for node in ast.walk(tree) if isinstance(node, ast.Dict) for value in node.values]


def _programs(tree: ast.Module) -> Iterator[ast.expr]:
    """What follows "-m" in a command: a program of its own that is started as a user would, no part of this one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.List | ast.Tuple):
            for flag, word in zip(node.elts, node.elts[1:], strict=False):
                if isinstance(flag, ast.Constant) and flag.value == "-m":
                    yield word
