"""Lines and passages of text files."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest

from textkeep.foundation import text_lines as module
from textkeep.foundation.json_lines import json_document
from textkeep.foundation.text_lines import BadLineError, paragraphs, plain_name, read_text, text_lines


def test_lines_have_the_numbers_that_an_editor_shows(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\n\ntwo\r\n\r\nthree\rfour\x0bfive\x0csix\x1cseven\n")
    expected = [(1, "one"), (2, ""), (3, "two"), (4, ""), (5, "three"), (6, "four\x0bfive\x0csix\x1cseven")]
    assert list(text_lines(path)) == expected


def test_a_line_without_end_does_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONGEST_LINE", 100)
    path = tmp_path / "a.txt"
    path.write_bytes(b"short\n" + b"x" * 1000 + b"\n" + b"y" * 99 + b"\nlast")
    told: list[BadLineError] = []
    assert list(text_lines(path, told.append)) == [(1, "short"), (3, "y" * 99), (4, "last")]
    assert [str(error) for error in told] == [f"{path}:2: the line is longer; allowed: lines of at most 100 bytes"]
    with pytest.raises(BadLineError, match=r"a\.txt:2: "):
        list(text_lines(path))


def test_only_one_line_is_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(b"line\n" * 100 + b"\xff\n" + b"line\n"))
    lines = text_lines(path)
    assert [next(lines)[0] for _ in range(100)] == list(range(1, 101))  # the bad line has not been reached
    with pytest.raises(BadLineError, match=r":101: not UTF-8"):
        next(lines)


def test_passages_stand_between_empty_lines_and_a_damaged_one_is_left_out_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(
        b"\xef\xbb\xbfone\nmore\r\n \r\ntwo\n\xe9\nrest of two\n\n\xe9\n\nthree\x85\n".replace(b"\x85", b"\xc2\x85")
    )
    told: list[BadLineError] = []
    assert list(paragraphs(path, told.append)) == [(1, "one\nmore"), (10, "three\x85")]
    assert [error.location for error in told] == [f"{path}:5", f"{path}:8"]


@pytest.mark.parametrize("content", [b"a: 1\r\nb: \xc3\xa9\r\n", b"\xef\xbb\xbfa: 1\rb: \xc3\xa9\r"])
def test_a_whole_text_has_one_end_of_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.yaml").write_bytes(content)
    assert read_text(tmp_path / "a.yaml") == "a: 1\nb: é\n"


@pytest.mark.parametrize(
    ("content", "place"),
    [(b"a\nb\n\xe9\n", ":3: not UTF-8"), (b"a\rb\0\r", ":2: the line holds NUL"), (b"\xff\xfea\0", ": UTF-16")],
)
def test_a_whole_text_names_the_bad_line(tmp_path: Path, content: bytes, place: str) -> None:
    (tmp_path / "a.yaml").write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path / 'a.yaml'}{place}")):
        read_text(tmp_path / "a.yaml")


def test_a_document_names_the_line_of_its_fault(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": 1,\n "b": [1, 2,]\n}\n')
    with pytest.raises(ValueError, match=r"a\.json:2: not JSON \(.*\); allowed: a map"):
        json_document(tmp_path / "a.json", "a map")


@pytest.mark.parametrize(("given", "plain"), [("x/a.jsonl.gz", "a.jsonl"), ("a.csv", "a.csv"), ("b.gz", "b")])
def test_the_name_without_the_compression(given: str, plain: str) -> None:
    assert plain_name(given).name == plain
