"""docs/papers.md is what the docstrings say."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from benchmarks import paper_index
from benchmarks.paper_index import CITED, PAGE, TITLES, Citation, citations, configs, docstrings, page


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "python -m benchmarks.paper_index writes it anew"


def test_every_name_of_a_paper_is_used() -> None:
    assert set(TITLES) == {citation.paper for citation in citations()}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("as in arXiv 2509.23755, equation 3. Then", ("", "2509.23755", "equation 3")),
        ("(Table 1 of arXiv 2509.23755)", ("Table 1", "2509.23755", "")),
        ("figures 1 and 4 of arXiv 2509.23755.", ("figures 1 and 4", "2509.23755", "")),
        ("(Kirkpatrick et al., arXiv 1612.00796, eq. 3).", ("", "1612.00796", "eq. 3")),
        ("ULMFiT, arXiv 1801.06146, section 3.2, with", ("", "1801.06146", "section 3.2")),
        ("(Li et al. 2021, 2110.05679)", ("", "2110.05679", "")),
    ],
)
def test_what_a_citation_is(text: str, found: tuple[str, str, str]) -> None:
    assert CITED.findall(text) == [found]


def test_a_method_counts_as_its_class_and_a_comment_as_nothing() -> None:
    code = '"""M."""\n# C\nclass A:\n    """A."""\n    def b(self):\n        """B."""\ndef f():\n    """F."""\n'
    assert list(docstrings(ast.parse(code))) == [("", "M."), ("A", "A."), ("A", "B."), ("f", "F.")]


def test_a_class_is_found_in_its_config_and_its_tests() -> None:
    lora = Citation("2106.09685", "lightning_modules/tuning/lora.py", "LoRA", "")
    assert configs(lora)[0].name == "lora.yaml"
    assert paper_index.tests(lora)[0].name == "test_lora.py"
    fisher = Citation("1905.12558", "importance/estimators.py", "Fisher", "")
    assert all(path.parent.name == "importance" for path in paper_index.tests(fisher))


def test_a_paper_without_a_name_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(paper_index, "TITLES", {})
    with pytest.raises(ValueError, match=r"allowed: a paper that benchmarks/papers\.yaml names"):
        page()
