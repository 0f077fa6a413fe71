"""Every reader of JSON lines takes the same files, leaves out the same lines and names the same ones."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from textkeep.callbacks.evaluations.plain_text_loss import _read as read_texts
from textkeep.datamodules.sources.bad_examples import BadExamples
from textkeep.datamodules.sources.hf_dataset import HFDataset
from textkeep.datamodules.sources.manifest import Manifest
from textkeep.datamodules.sources.plain_text import PlainText
from textkeep.foundation.json_lines import json_objects
from textkeep.preparation.speech.rows import read_questions

BOM = b"\xef\xbb\xbf"


def line(name: str, text: str | None = None) -> bytes:
    """A line that is a question and a text at once, so that every reader takes it; the text as it stands in JSON."""
    text = text or f"What is {name}?"
    return f'{{"id": "{name}", "question": "{text}", "answers": ["x"], "text": "{text}"}}'.encode()


A, B, C = line("a"), line("b"), line("c")
ASKED = {name: f"What is {name}?" for name in "abc"}

GOOD = {
    "line feeds": A + b"\n" + B + b"\n" + C + b"\n",
    "no last line feed": A + b"\n" + B + b"\n" + C,
    "carriage returns and line feeds": A + b"\r\n" + B + b"\r\n" + C + b"\r\n",
    "carriage returns": A + b"\r" + B + b"\r" + C + b"\r",
    "empty lines": b"\n" + A + b"\n  \t\n\n" + B + b"\n" + C + b"\n\n",
    "byte order mark": BOM + A + b"\n" + B + b"\n" + C,
    "files with byte order marks joined": BOM + A + b"\n" + BOM + B + b"\n" + BOM + C + b"\n",
    "gzip": gzip.compress(A + b"\n" + B + b"\n" + C),
    "gzip of a byte order mark": gzip.compress(BOM + A + b"\r\n" + B + b"\r\n" + C),
    "two gzip files joined": gzip.compress(A + b"\n") + gzip.compress(B + b"\n" + C),
}

KEPT_CHARACTERS = {
    "line separator": "one\u2028two",
    "next line": "one\u0085two",
    "paragraph separator": "one\u2029two",
    "no-break space": "one\u00a0two",
    "an escaped pair": "\\ud83d\\ude00",
    "a pair as one character": "😀",
    "an escaped escape of NUL": "one\\\\u0000two",
    "a mark inside": "one\ufefftwo",
}

BAD_LINES = {
    "latin-1": (line("b", "Où?").decode().encode("latin-1"), "not UTF-8", "byte 0xf9"),
    "half a character": (B[:-1] + b"\xe2\x80", "not UTF-8", "allowed: text in UTF-8"),
    "surrogates in UTF-8": (line("b", "@").replace(b"@", b"\xed\xa0\xbd\xed\xb8\x80"), "not UTF-8", "byte 0xed"),
    "overlong UTF-8": (line("b", "@").replace(b"@", b"\xc0\xaf"), "not UTF-8", "byte 0xc0"),
    "NUL bytes": (b"\0" * 40, "NUL", "a file that was not written to its end"),
    "an escape of NUL": (line("b", "one\\u0000two"), "NUL", r"NUL in 'one\x00two'"),
    "the first half of a pair": (line("b", "\\ud83d!"), "lone surrogate", r"'\ud83d!'; allowed: whole characters"),
    "the second half of a pair": (line("b", "\\uDE00"), "lone surrogate", "half a surrogate pair"),
    "halves in the wrong order": (line("b", "\\ude00\\ud83d"), "lone surrogate", "half a surrogate pair"),
    "half a pair in a key": (b'{"id": "b", "\\ud83d": [{"x": 1}]}', "lone surrogate", "half a surrogate pair"),
    "half a pair deep inside": (B[:-1] + b', "m": [{"x": ["\\udfff"]}]}', "lone surrogate", "half a surrogate pair"),
    "a cut line": (B[:40], "bad json", "not JSON (Unterminated string"),
    "a comma behind": (B + b",", "bad json", "no comma stands between lines"),
    "two objects": (B + B, "bad json", "Extra data"),
    "quotes of Python": (b"{'id': 'b'}", "bad json", "strings stand in double quotes"),
    "the start of a list": (b"[", "bad json", "it looks like a JSON list over several lines"),
    "a list": (b"[" + B + b"]", "bad json", "a JSON list; allowed: one object per line"),
    "a number": (b"7", "bad json", "a JSON int; allowed: one object per line"),
    "null": (b"null", "bad json", "a JSON NoneType; allowed: one object per line"),
    "a raw tab in a string": (line("b", "one\ttwo"), "bad json", "Invalid control character"),
    "nested without end": (b'{"id": ' + b"[" * 100000, "bad json", "nested too deeply"),
    "digits without end": (b'{"id": ' + b"1" * 5000 + b"}", "bad json", "4300 digits"),
}

NO_TEXT = {
    "UTF-16": ((A + b"\n").decode().encode("utf-16"), "UTF-16"),
    "a zip archive": (b"PK\x03\x04" + bytes(30), "a zip archive"),
    "xz": (lzma.compress(A), "compressed with xz"),
    "bzip2": (bz2.compress(A), "compressed with bzip2"),
    "zstd": (b"\x28\xb5\x2f\xfd" + bytes(30), "compressed with zstd"),
    "parquet": (b"PAR1\x15\x04", "a parquet file"),
    "a cut gzip file": (gzip.compress(A * 2000)[:-9], "damaged after line 0 (Compressed file ended"),
    "a damaged gzip file": (gzip.compress(A)[:30] + bytes(60), "damaged after line 0"),
}

Reader = Callable[[str, BadExamples], list[str]]
FORGIVING: dict[str, Reader] = {
    "Manifest": lambda path, bad: [e.question for e in Manifest(path).read(bad)],
    "PlainText": lambda path, bad: [e.target for e in PlainText(path).read(bad)],
    "HFDataset": lambda path, bad: [e.question for e in HFDataset(path).read(bad)],
    "json_objects": lambda path, bad: [row["text"] for _, row in json_objects(path, bad.report)],
}
STRICT: dict[str, Reader] = {
    "speak": lambda path, bad: [row["question"] for row in read_questions([Path(path)])[0].rows],
    "PlainTextLoss": lambda path, bad: [read.text for read in read_texts(path).values()],
}
every_reader = pytest.mark.parametrize("reader", {**FORGIVING, **STRICT}.values(), ids={**FORGIVING, **STRICT}.keys())
forgiving_readers = pytest.mark.parametrize("reader", FORGIVING.values(), ids=FORGIVING.keys())


@every_reader
def test_good_layouts_are_read_whole(tmp_path: Path, reader: Reader) -> None:
    for number, (layout, content) in enumerate(GOOD.items()):
        path = tmp_path / f"{number}.jsonl"
        path.write_bytes(content)
        assert reader(str(path), BadExamples()) == list(ASKED.values()), layout


@every_reader
def test_characters_stay_what_they_are(tmp_path: Path, reader: Reader) -> None:
    for number, (kind, written) in enumerate(KEPT_CHARACTERS.items()):
        path = tmp_path / f"{number}.jsonl"
        path.write_bytes(A + b"\n" + line("b", written) + b"\n" + C)
        expected = [ASKED["a"], json.loads(f'"{written}"'), ASKED["c"]]
        assert reader(str(path), BadExamples()) == expected, kind


@every_reader
def test_a_bad_line_is_named(tmp_path: Path, reader: Reader) -> None:
    for number, (fault, (bad, _, message)) in enumerate(BAD_LINES.items()):
        path = tmp_path / f"{number}.jsonl"
        path.write_bytes(A + b"\n\n" + bad + b"\n" + C)
        with pytest.raises(ValueError, match=rf"^{re.escape(str(path))}:3: .*{re.escape(message)}") as caught:
            reader(str(path), BadExamples("raise"))
        assert "allowed: " in str(caught.value), fault
        assert "\n" not in str(caught.value), fault


@forgiving_readers
@pytest.mark.filterwarnings("ignore:skipped")
def test_a_bad_line_is_left_out_and_counted(tmp_path: Path, reader: Reader) -> None:
    for number, (fault, (bad, reason, _)) in enumerate(BAD_LINES.items()):
        path = tmp_path / f"{number}.jsonl"
        path.write_bytes(A + b"\n" + bad + b"\n" + C)
        counted = BadExamples("skip")
        assert reader(str(path), counted) == [ASKED["a"], ASKED["c"]], fault
        assert dict(counted.counts) == {reason: 1}, fault


@every_reader
@pytest.mark.parametrize("policy", ["raise", "skip"])
def test_files_that_are_no_text_are_named_whatever_the_policy(tmp_path: Path, reader: Reader, policy: Any) -> None:
    for number, (kind, (content, message)) in enumerate(NO_TEXT.items()):
        path = tmp_path / f"{number}.jsonl"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=re.escape(f"{path}: {message}")) as caught:
            reader(str(path), BadExamples(policy))
        assert "allowed: " in str(caught.value), kind


@every_reader
def test_the_name_of_a_compressed_file_may_say_so(tmp_path: Path, reader: Reader) -> None:
    path = tmp_path / "train.jsonl.gz"
    path.write_bytes(gzip.compress(A + b"\n" + B + b"\n" + C))
    assert reader(str(path), BadExamples()) == list(ASKED.values())
    assert Manifest(str(path)).name == PlainText(str(path)).name == "train"
