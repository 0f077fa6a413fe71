"""The embedded sets of plain text: how passages are cut and drawn, and what the repository ships."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from textkeep.cli.facts import main
from textkeep.foundation.assets import locate
from textkeep.foundation.errors import UserError
from textkeep.preparation.plain_text.books import austen, newton
from textkeep.preparation.plain_text.document import Document
from textkeep.preparation.plain_text.papers import jargon, rust_book
from textkeep.preparation.plain_text.passages import passages
from textkeep.preparation.plain_text.sets import plain_text_sets

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "datamodules" / "plain_text"


def sentence(words: int, name: str = "It") -> str:
    return " ".join([name, *["went"] * (words - 2), "on."])


def document(*paragraphs: str) -> Document:
    return Document("fiction", "A book", paragraphs)


def test_a_passage_is_whole_sentences_of_90_to_170_words() -> None:
    found = list(passages(document(" ".join([sentence(40)] * 5), sentence(50), sentence(89), sentence(171))))
    assert found == [
        " ".join([sentence(40)] * 3),  # 80 words were too few
        f"{sentence(40)} {sentence(40)}\n\n{sentence(50)}",
    ]  # 89 words alone are no passage, and with what follows too long a one


def test_short_forms_end_no_sentence() -> None:
    text = f"{sentence(88)} Then came Mr. Darcy. {sentence(90)}"
    assert list(passages(document(text))) == [f"{sentence(88)} Then came Mr. Darcy.", sentence(90)]


@pytest.mark.parametrize(
    "foreign", ["See http://a.b now.", "Then x = y holds.", "In 1969 12,000 went.", "YOU ARE HERE."]
)
def test_what_is_no_prose_is_left_out(foreign: str) -> None:
    assert list(passages(document(f"{sentence(89)} {foreign}"))) == []
    assert len(list(passages(document(f"{sentence(89)} All of it was well.")))) == 1


def test_halves_hold_all_kinds_and_share_no_document_and_no_run_of_words() -> None:
    words = ["".join(chr(97 + (place // 26**k) % 26) for k in range(3)) for place in range(26**3)]

    def novel(place: int) -> str:
        return " ".join([words[place * 95].capitalize(), *words[place * 95 + 1 : place * 95 + 95]]) + "."

    kinds = [[Document(kind, f"{kind} {i}", (novel(40 * k + i),)) for i in range(12)] for k, kind in enumerate("ab")]
    copied = Document("b", "b copy", (novel(0),))  # what the first kind holds already
    drawn = plain_text_sets([kinds[0], [*kinds[1], copied]], each=5, rehearsed=2)
    assert [row["kind"] for row in drawn["probe"]] == ["a", "b"] * 5
    assert [row["id"] for row in drawn["rehearsal"]] == [f"{k}-rehearsal-0{i}" for i in (1, 2) for k in "ab"]
    assert [row["id"] for row in drawn["evaluation"]][:3] == ["a-evaluation-01", "b-evaluation-01", "a-evaluation-02"]
    sources = [row["source"] for rows in drawn.values() for row in rows]
    assert len(set(sources)) == 24
    assert "b copy" not in sources
    assert drawn == plain_text_sets([kinds[0][::-1], [copied, *kinds[1][::-1]]], each=5, rehearsed=2)
    halves = plain_text_sets([kinds[0], [*kinds[1], copied]], each=5, rehearsed=1)
    assert all(halves[name] == drawn[name] for name in ("probe", "evaluation"))  # whatever is rehearsed
    with pytest.raises(ValueError, match="12 passages of b; allowed: at least 14"):
        plain_text_sets([kinds[1]], each=6, rehearsed=2)


def test_lines_are_read_out_of_the_data_base_of_an_r_package(tmp_path: Path) -> None:
    lines = ["EMMA", "", "CHAPTER I", "", "She was", "handsome.", "", "CHAPTER II", "Café."]

    def string(text: str) -> bytes:
        flags = b"\0\4\0\x09" if text.isascii() else b"\0\0\x80\x09"
        return flags + len(text.encode()).to_bytes(4, "big") + text.encode()

    vector = b"X\n\0\0\0\3\0\4\2\1\0\0\0\x10" + len(lines).to_bytes(4, "big") + b"".join(map(string, lines))
    stored = len(vector).to_bytes(4, "big") + zlib.compress(vector)
    path = tmp_path / "books.rdb"
    path.write_bytes(stored + stored)
    found = [(d.source.partition("), ")[2], [p for p in d.paragraphs if p]) for d in austen(path)]
    assert found == 2 * [("chapter 1 of all volumes", ["She was handsome."]), ("chapter 2 of all volumes", ["Café."])]


def test_sections_entries_and_paragraphs_are_found(tmp_path: Path) -> None:
    opticks = tmp_path / "opticks.txt"
    opticks.write_text("Title\n\n_PROP._ I. THEOR. I.\n\n_Lights differ_ [in _Fig._ 4.]\nmuch.\n\n_Obs._ 2. I saw.\n")
    found = {d.source.partition("1730), ")[2]: [p for p in d.paragraphs if p] for d in newton(opticks)}
    assert found == {
        "section 1 (proposition I)": ["Lights differ much."],
        "section 2 (observation 2)": ["I saw."],
    }
    lexicon = tmp_path / "jargon.dict.dz"
    lexicon.write_bytes(gzip.compress(b"Head\n\nfoo\n n.\n\n    A {bar\n    baz}.\n\n    Two.\nnext\n\n    It.\n"))
    entries = {d.source: [p for p in d.paragraphs if p] for d in jargon(lexicon)}
    assert entries["The Jargon File 4.4.7, “foo”"] == ["n.", "A bar baz.", "Two."]
    assert entries["The Jargon File 4.4.7, “next”"] == ["It."]
    (tmp_path / "ch04-01-what.html").write_text("<p>One <code>x</code>\nis &amp; was.</p><pre>no</pre><p>Two</p>")
    assert [(d.source, d.paragraphs) for d in rust_book(tmp_path)] == [
        ("The Rust Programming Language (2022), section 4.1", ("One x is & was.", "Two"))
    ]


# What the repository ships.


def shipped() -> dict[str, list[dict[str, Any]]]:
    names = ("probe", "evaluation", "rehearsal")
    return {name: [json.loads(x) for x in (SHIPPED / f"{name}.jsonl").read_text().splitlines()] for name in names}


def test_shipped_halves_are_disjoint_and_of_many_kinds() -> None:
    halves = shipped()
    rows = [row for half in halves.values() for row in half]
    assert len(rows) >= 200
    for key in ("id", "text", "source"):
        assert len({row[key] for row in rows}) == len(rows)
    for half in halves.values():
        kinds = [row["kind"] for row in half]
        assert len(set(kinds)) >= 5
        assert len(set(Counter(kinds[:50]).values())) == 1  # the first are as mixed as all
        assert all(row.keys() == {"id", "text", "kind", "source"} for row in half)
        assert all(80 <= len(row["text"].split()) <= 200 for row in half)
    runs: dict[tuple[str, ...], str] = {}
    for row in rows:  # by hand, and with marks and numbers
        words = re.findall(r"\w+", row["text"].lower())
        for start in range(len(words) - 11):
            run = tuple(words[start : start + 12])
            assert runs.setdefault(run, row["id"]) == row["id"], (run, runs[run], row["id"])


def test_shipped_passages_are_small_licensed_and_no_training_data() -> None:
    assert sum(path.stat().st_size for path in SHIPPED.glob("*.jsonl")) < 400_000
    works = ("Moby-Dick", "Austen", "State of the Union", "Opticks", "Jargon File", "Rust Programming Language")
    notice = " ".join((ROOT / "NOTICE").read_text().split())
    assert all(work in notice for work in works)
    for half in shipped().values():
        assert all(any(work in row["source"] for work in works) for row in half)
    facts = (ROOT / "datamodules" / "spoken_facts" / "train.jsonl").read_text()
    assert not any(row["text"][:60] in facts for half in shipped().values() for row in half)


@pytest.mark.slow
def test_the_sets_are_made_anew_to_the_last_byte(tmp_path: Path) -> None:
    try:
        locate("prose-sources")
    except FileNotFoundError as error:
        pytest.skip(str(error))
    assert main([str(tmp_path), "--plain-text"]) == 0
    for name in ("probe", "evaluation", "rehearsal"):
        assert (tmp_path / f"{name}.jsonl").read_bytes() == (SHIPPED / f"{name}.jsonl").read_bytes(), name
    with pytest.raises(UserError, match="--overwrite"):
        main([str(tmp_path), "--plain-text"])
