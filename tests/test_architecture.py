"""The rooms use each other as docs/ARCHITECTURE.md draws it, and what it says of the code is so."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from tests.support.house import DOTTED, ROOMS, ROOT, House, Use, climbs_out

PAGE = ROOT / "docs" / "ARCHITECTURE.md"
ARROWS: dict[str, tuple[str, ...]] = {
    "foundation": (),
    "importance": (),
    "evaluation": (),
    "datamodules": (),
    "lightning_modules": ("importance",),
    "callbacks": ("importance", "evaluation"),
    "runs": ("importance", "evaluation", "datamodules.sources"),
    "preparation": ("datamodules.sources", "evaluation"),
    "inference": ("lightning_modules", "datamodules", "callbacks", "importance", "evaluation"),
    "planning": ("lightning_modules", "datamodules", "callbacks", "importance"),
    "cli": tuple(room for room in ROOMS if room != "cli"),
}
"""A room may use itself, the foundation, and what stands here: the list of the design."""
KNOWS_SHIPPED_DATA = ROOT / "foundation" / "assets.py"
"""The only file that knows where in the package its data lies."""


@cache
def uses() -> list[Use]:
    return House().uses()


def room(module: str) -> str:
    return module.split(".")[0]


def may(user: str, target: str) -> bool:
    allowed = ("foundation", room(user), *ARROWS[room(user)])
    return any(f"{target}.".startswith(f"{name}.") for name in allowed)


def circles(edges: set[tuple[str, str]]) -> list[list[str]]:
    """The groups of modules that use each other in a circle."""
    names = sorted({name for edge in edges for name in edge})
    index = {name: number for number, name in enumerate(names)}
    pairs = np.array([(index[a], index[b]) for a, b in sorted(edges)], dtype=int).reshape(-1, 2)
    graph = coo_array((np.ones(len(pairs)), pairs.T), shape=(len(names), len(names)))
    labels = connected_components(graph, connection="strong")[1]
    groups = [[name for name in names if labels[index[name]] == label] for label in set(labels)]
    return sorted(group for group in groups if len(group) > 1)


def test_every_folder_of_code_is_a_room() -> None:
    apart = {"benchmarks", "configs", "docs", "tests"}
    tops = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert tops - apart == set(ROOMS) == set(ARROWS)


def test_every_import_leads_to_a_module() -> None:
    """Mypy is told to let missing imports pass."""
    assert [use for use in uses() if not use.exists] == []


def test_rooms_use_only_what_their_arrows_allow() -> None:
    wrong = [f"{use.module}:{use.line} -> {use.target}" for use in uses() if not may(use.module, use.target)]
    assert wrong == []


def test_no_files_use_each_other_in_a_circle() -> None:
    found = circles({(use.module, use.target) for use in uses() if use.module != use.target and use.imported})
    assert not found, "\n".join(" <-> ".join(group) for group in found)


def test_only_the_foundation_reaches_out_of_its_room_by_a_path() -> None:
    files = [path for name in ROOMS for path in sorted((ROOT / name).rglob("*.py")) if path != KNOWS_SHIPPED_DATA]
    assert {str(path.relative_to(ROOT)): lines for path in files if (lines := climbs_out(path))} == {}
    assert climbs_out(KNOWS_SHIPPED_DATA)


YAMLS = [path for folder in ("configs", "benchmarks", *ROOMS) for path in sorted((ROOT / folder).rglob("*.yaml"))]


def test_class_paths_of_yaml_lead_to_a_module_that_their_room_may_use() -> None:
    house, seen = House(), 0
    for path in YAMLS:
        own = path.relative_to(ROOT).parts[0]
        for dotted in DOTTED.findall(path.read_text(encoding="utf-8")):
            target, exists = house.nearest(dotted.removeprefix("textkeep."))
            seen += 1
            assert exists, f"{path}: {dotted}"
            assert own not in ROOMS or may(own, target), f"{path}: {dotted}"
    assert len(YAMLS) > 50


def picture() -> set[tuple[str, str]]:
    """The arrows of the mermaid picture; one at a group of rooms stands for one at each of them."""
    (drawn,) = re.findall(r"```mermaid\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    groups: dict[str, list[str]] = {}
    inside: list[str] = []
    for line in drawn.splitlines():
        if found := re.match(r" *subgraph (\w+)", line):
            inside.append(found[1])
            groups[found[1]] = []
        elif line.strip() == "end":
            inside.pop()
        elif (found := re.match(r" *(\w+)\[", line)) and inside:
            groups[inside[-1]].append(found[1])
    edges: set[tuple[str, str]] = set()
    for start, ends in re.findall(r"^ *(\w+) -->(?:\|[^|]*\|)? (\w+(?: & \w+)*)$", drawn, re.MULTILINE):
        for end in ends.split(" & "):
            edges |= {(a, b) for a in groups.get(start, [start]) for b in groups.get(end, [end])}
    return edges


def test_the_picture_is_what_the_code_is() -> None:
    used = {(room(use.module), room(use.target)) for use in uses()}
    assert picture() == {(user, target) for user, target in used if user != target}


@cache
def functions(path: str) -> set[str]:
    """The classes, functions and methods of a file: ``load``, ``Run``, ``Run.open``."""
    found: set[str] = set()

    def visit(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                found.add(prefix + child.name)
                visit(child, f"{prefix}{child.name}.")

    visit(ast.parse((ROOT / path).read_text(encoding="utf-8")), "")
    return found


WALKS = dict(
    re.findall(r"^## Walk: (.+?)\n(.*?)(?=^## |\Z)", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
)


def test_there_are_four_walks() -> None:
    wanted = [
        "from a manifest line to the loss",
        "from a checkpoint to the dashboard",
        "from a run directory to the report",
    ]
    assert list(WALKS) == [*wanted, "from the command line to a fit"]


@pytest.mark.parametrize("name", WALKS)
def test_every_stop_of_a_walk_exists(name: str) -> None:
    steps = re.findall(r"^(\d+)\. `([\w/]+\.py):([\w.]+)` \w", WALKS[name], re.MULTILINE)
    assert [int(number) for number, _, _ in steps] == list(range(1, len(steps) + 1))
    assert len(steps) == len(re.findall(r"^\d+\. ", WALKS[name], re.MULTILINE)) > 5
    missing = [f"{file}:{function}" for _, file, function in steps if not _is_there(file, function)]
    assert missing == []


def _is_there(file: str, function: str) -> bool:
    return (ROOT / file).is_file() and function in functions(file)


def test_every_package_says_what_it_is() -> None:
    tops = [*ROOMS, "benchmarks", "tests"]
    folders = {path.parent for top in tops for path in (ROOT / top).rglob("*.py")}
    silent = []
    for folder in sorted(folders):
        init = folder / "__init__.py"
        if not init.is_file() or not ast.get_docstring(ast.parse(init.read_text(encoding="utf-8"))):
            silent.append(str(folder.relative_to(ROOT)))
    assert silent == []


@pytest.fixture
def small(tmp_path: Path) -> House:
    """A house with one fault of each kind."""
    texts = {
        "cli/__init__.py": "",
        "cli/main.py": "import_module(n, package=__package__)\nVERBS = {'a': '.gone:main', 'b': '.other', 'c': '.x'}",
        "cli/other.py": "PROGRAM = ('python', '-m', 'textkeep.cli.main')\nNAME = 'textkeep.runs.page.Page'",
        "runs/__init__.py": "from_modules(__name__, {'Page': 'page'})",
        "runs/page.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..cli import other\n",
        "runs/late.py": "def f():\n    from ..nowhere import x\nfrom .... import y\nR = Path(__file__).parents[1]",
    }
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return House(tmp_path, ("cli", "runs"))


def test_the_reading_sees_each_kind_of_use(small: House, tmp_path: Path) -> None:
    found = {(use.module, use.target): use.exists for use in small.uses()}
    assert found == {
        ("cli.main", "cli.gone"): False,
        ("cli.main", "cli.other"): True,
        ("cli.other", "runs.page"): True,
        ("runs", "runs.page"): True,
        ("runs.page", "cli.other"): True,
        ("runs.late", "nowhere"): False,
        ("runs.late", "...."): False,
    }
    assert circles(set(found)) == [["cli.other", "runs.page"]]
    assert circles({(use.module, use.target) for use in small.uses() if use.imported}) == []  # a class path is data
    assert climbs_out(tmp_path / "runs/late.py", tmp_path) == [4]
    assert not may("runs.page", "cli.other")
    assert may("runs.page", "datamodules.sources.example")
    assert not may("runs.page", "datamodules.probes")
