"""Every link of a document leads to a file that is there, and to a heading that it has."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

from tests.support.house import ROOT

LINK = re.compile(r"\]\(((?!https?://|mailto:)[^)\s]+)\)")
TRACKED = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
PAGES = sorted(ROOT / name for name in TRACKED.splitlines() if (ROOT / name).is_file())


@cache
def anchors(page: Path) -> frozenset[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return frozenset(slug(heading) for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE))


def slug(heading: str) -> str:
    shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
    return re.sub(r"[^\w\- ]", "", shown).strip().replace(" ", "-")


def dead(page: Path, text: str) -> list[str]:
    """The links of a text that lead nowhere, if it stood in this page's place."""
    found = []
    for link in LINK.findall(text):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            found.append(link)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_its_links_lead_somewhere(page: Path) -> None:
    assert dead(page, page.read_text(encoding="utf-8")) == []


def test_a_link_to_nothing_is_seen() -> None:
    page = ROOT / "docs/README.md"
    good = "[a](tutorial.md) [b](../README.md#citation-and-licence) [c](https://example.org) [d](#documentation)"
    assert dead(page, good + " [e](gone.md) [f](tutorial.md#gone) [g](#gone)") == [
        "gone.md",
        "tutorial.md#gone",
        "#gone",
    ]


def test_every_document_is_in_the_index() -> None:
    """Two steps from the README at most."""
    index = (ROOT / "docs/README.md").read_text(encoding="utf-8")
    listed = {(ROOT / "docs" / link.partition("#")[0]).resolve() for link in LINK.findall(index)}
    pages = {page for page in PAGES if page.is_relative_to(ROOT / "docs")} - {ROOT / "docs/README.md"}
    assert sorted(str(page.relative_to(ROOT)) for page in pages - listed) == []
