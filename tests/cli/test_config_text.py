"""Configs and plans that are no text are named with their line."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from textkeep.cli.config_files import check_config_files, config_files
from textkeep.runs.study.spec import read_study


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: 1\n# caf\xe9\n", r"c\.yaml:2: not UTF-8 \(byte 0xe9"),
        ("a: 1\n".encode("utf-16"), r"c\.yaml: UTF-16"),
        (b"a: 1\n\0\0\n", r"c\.yaml:2: the line holds NUL"),
        (b"\xef\xbb\xbfa: 1\nb: [1\n", r"c\.yaml:3: "),
        (b'a: {b: ["\\ud83d\\ude00"]}\n', r"c\.yaml: half a surrogate pair in .*allowed: whole characters"),
        (b'a: "\\0"\n', r"c\.yaml: NUL in "),
        (b"a: &a [*a]\n", r"c\.yaml: nested too deeply"),
    ],
)
def test_what_is_no_yaml_text_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        check_config_files(["--config", str(path)])
    with pytest.raises(ValueError, match=message):
        read_study(path)


@pytest.mark.parametrize("content", [b"\xef\xbb\xbfa: 1\r\nb: 2\r\n", b"a: 1\rb: 2\r", b"a: '\xc2\x85'\n"])
def test_byte_order_marks_and_ends_of_lines_do_not_matter(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "c.yaml").write_bytes(content)
    check_config_files(["--config", str(tmp_path / "c.yaml")])


@pytest.mark.parametrize("name", ["c.yaml.gz", "c.yaml"])
def test_a_compressed_config_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(gzip.compress(b"trainer: {max_steps: 3}"))
    with pytest.raises(ValueError, match=rf"{name}: compressed with gzip; allowed: a YAML file as plain text"):
        check_config_files(["--config", str(tmp_path / name)])


def test_a_flag_without_a_file_is_no_file_of_that_name() -> None:
    assert not list(config_files(["--config"])) + list(config_files(["--config="]))
