"""What the site needs besides the pages of docs/: the API reference, and links that lead out of the folder."""

from __future__ import annotations

import inspect
import logging
import re
from importlib import import_module
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("inference", "importance", "runs", "evaluation", "datamodules", "lightning_modules", "callbacks")
LINK = re.compile(r"\[([^\]]+)\]\(((?:\.\./)+[^)#\s]*)(?:#[^)\s]*)?\)")
LOG = logging.getLogger("mkdocs.hooks.textkeep")


def on_files(files: Files, config: Any) -> Files:
    """Adds a page for each public package: what its list of public names holds, from the docstrings."""
    for name in PACKAGES:
        files.append(File.generated(config, f"api/{name}.md", content=reference(name)))
    return files


def reference(name: str) -> str:
    """Writes the page of a package, with a directive of mkdocstrings for each class and function."""
    package = import_module(f"textkeep.{name}")
    intro = inspect.getdoc(package) or ""
    parts = [f"# textkeep.{name}", intro.splitlines()[0]]
    for public in package.__all__:
        found = getattr(package, public)
        if inspect.isclass(found) or inspect.isfunction(found):
            parts.append(f"::: {found.__module__}.{found.__qualname__}")
    return "\n\n".join(parts) + "\n"


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Makes names of files out of links that lead out of docs/, which the site does not have; warns of a dead one."""
    folder = (Path(config.docs_dir) / page.file.src_uri).parent

    def plain(link: re.Match[str]) -> str:
        target = (folder / link[2]).resolve()
        if target.is_relative_to(config.docs_dir):
            return link[0]
        if not target.exists():
            LOG.warning("%s: the link to %s leads nowhere", page.file.src_uri, link[2])
        return link[1] if "`" in link[1] else f"`{target.relative_to(ROOT)}`" if link[1] in link[2] else link[1]

    return LINK.sub(plain, markdown)
