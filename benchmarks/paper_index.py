"""Which paper is implemented where: docs/papers.md, made from the docstrings that cite arXiv numbers.

    python -m benchmarks.paper_index

A docstring cites ``arXiv 2509.23755``, or ``arXiv 2509.23755, equation 3``, or ``table 1 of arXiv 2509.23755``; the
paper's name is in ``papers.yaml``. Configs are those that name the class, tests those that import it.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "papers.md"
TITLES: dict[str, str] = yaml.safe_load(Path(__file__).with_name("papers.yaml").read_text(encoding="utf-8"))
ROOMS = (
    *("foundation", "importance", "evaluation", "datamodules", "lightning_modules"),
    *("callbacks", "inference", "runs", "preparation", "cli"),
)
PART = r"(?:equations?|eq\.|sections?|tables?|figures?|appendix) [A-Z\d](?:\.?\d)*(?:(?:,| and| to) \d(?:\.?\d)*)*"
CITED = re.compile(rf"(?:({PART}) of )?(?:arXiv )?\b(\d{{4}}\.\d{{5}})\b(?:, ({PART}))?", re.IGNORECASE)
SHOWN = 2
HEAD = """# Which paper is where

Made by `python -m benchmarks.paper_index` from the docstrings that cite a paper; change those. Where a formula's number
is not given, no source at hand has it. Configs and tests: at most two each, those nearest to the code.

| paper | place in it | code | configs | tests |
| --- | --- | --- | --- | --- |
"""


@dataclass(frozen=True, order=True)
class Citation:
    """A paper in a docstring.

    Attributes:
        paper: Its arXiv number.
        path: Of the file, from the root.
        name: Of the class, or of a function outside classes; empty for the module.
        part: Equation, section, table or figure; empty if none is named.
    """

    paper: str
    path: str
    name: str
    part: str


def citations() -> list[Citation]:
    """Reads all docstrings of the rooms."""
    found: dict[Citation, None] = {}
    for path in sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py")):
        for name, text in docstrings(ast.parse(path.read_text(encoding="utf-8"))):
            for before, paper, after in CITED.findall(" ".join(text.split())):
                part = ", ".join(part for part in (before, after) if part).lower().replace("eq.", "equation")
                found[Citation(paper, path.relative_to(ROOT).as_posix(), name, part)] = None
    return sorted(found)


def docstrings(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Returns (name, docstring) of a module, its classes with their methods, and its functions."""
    yield "", ast.get_docstring(tree) or ""
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            for inner in ast.walk(node):
                if isinstance(inner, ast.ClassDef | ast.FunctionDef):
                    yield node.name, ast.get_docstring(inner) or ""


def configs(citation: Citation) -> list[Path]:
    """Lists the YAML files under ``configs/`` that name the class: the one with its name first, then the smallest."""
    named = re.compile(rf"^[^#\n]*: (?:[\w.]+\.)?{citation.name}\b", re.MULTILINE)
    found = [path for path in _files("configs", "*.yaml") if citation.name and named.search(_text(path))]
    own = citation.name.lower()
    return sorted(found, key=lambda path: (path.stem.replace("_", "") != own, len(_text(path)), path.as_posix()))


def tests(citation: Citation) -> list[Path]:
    """Lists the tests that import the class, function or module, or else those of its room that mention it."""
    room, module = citation.path.split("/")[0], Path(citation.path).stem
    files = _files("tests", "test_*.py")
    if found := [path for path in files if _imports(path, citation)]:
        return sorted(found, key=lambda path: (module not in path.stem, path.parent.name != room, path.as_posix()))
    word = re.compile(rf"\b{re.sub(r'(?<=[a-z])(?=[A-Z])', '_', citation.name).lower() or module}\b")
    counts = {path: len(word.findall(_text(path))) for path in files if path.parent.name == room}
    return sorted((path for path in counts if counts[path]), key=lambda path: (-counts[path], path.as_posix()))


def _imports(path: Path, citation: Citation) -> bool:
    parts = ["textkeep", *Path(citation.path).with_suffix("").parts]
    package, module = ".".join(parts[:-1]), ".".join(parts)
    for origin, name in _imported(path):
        if name == citation.name and origin.startswith(".".join(parts[:2])):
            return True
        if not citation.name and (origin == module or (origin == package and name == parts[-1])):
            return True
    return False


def page() -> str:
    """Returns the text of ``docs/papers.md``.

    Raises:
        ValueError: If a paper has no name in ``papers.yaml``.
    """
    rows, last = [], ""
    for citation in citations():
        if citation.paper not in TITLES:
            raise ValueError(
                f"{citation.path} cites {citation.paper}; allowed: a paper that benchmarks/papers.yaml names"
            )
        rows.append(_row(citation, citation.paper != last))
        last = citation.paper
    return HEAD + "".join(rows)


def _row(citation: Citation, first: bool) -> str:
    title = f"{TITLES[citation.paper]} ([{citation.paper}](https://arxiv.org/abs/{citation.paper}))" if first else ""
    code = f"[`{citation.name or Path(citation.path).stem}`](../{citation.path})"
    cells = [title, citation.part, code, _links(configs(citation)), _links(tests(citation))]
    return "| " + " | ".join(cells) + " |\n"


def _links(paths: list[Path]) -> str:
    return ", ".join(f"[{path.name}](../{path.relative_to(ROOT).as_posix()})" for path in paths[:SHOWN])


@cache
def _files(folder: str, pattern: str) -> list[Path]:
    return sorted((ROOT / folder).rglob(pattern))


@cache
def _imported(path: Path) -> set[tuple[str, str]]:
    """(Module, name) of each import of a file."""
    froms = [node for node in ast.walk(ast.parse(_text(path))) if isinstance(node, ast.ImportFrom)]
    return {(node.module or "", alias.name) for node in froms for alias in node.names}


@cache
def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def main() -> int:
    """Writes the page."""
    PAGE.write_text(page(), encoding="utf-8")
    print(f"{PAGE.relative_to(ROOT)}: {len(citations())} places")
    return 0


if __name__ == "__main__":
    sys.exit(main())
