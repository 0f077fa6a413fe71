"""Tables in files: cells as they stand there, bad rows named, broken files told in one line."""

from __future__ import annotations

import gzip
import json
import re
import unicodedata
from pathlib import Path
from typing import Any

import datasets
import pytest
import soundfile

from textkeep.datamodules.sources.audio import clip_seconds, read_waveform
from textkeep.datamodules.sources.bad_examples import BadExamples
from textkeep.datamodules.sources.hf_dataset import HFDataset
from textkeep.datamodules.sources.manifest import ClipFinder, Manifest

from .conftest import tone

HEADER = b"id,question,answers\n"


def answers(path: Path, policy: Any = "raise", **settings: Any) -> dict[str, tuple[str, ...]]:
    """Accepted answers by id."""
    return {e.id: e.answers for e in HFDataset(str(path), **settings).read(BadExamples(policy))}


@pytest.mark.parametrize("form", ["file", "gzip", "folder", "split"])
def test_cells_of_csv_are_the_texts_that_stand_there(tmp_path: Path, form: str) -> None:
    cells = ["NA", "null", "None", "nan", "true", "1969", "007", "1e3", "-", "2020-01-01", "1969.0", '"a, ""b"""', "é"]
    content = "\ufeff" + HEADER.decode() + "".join(f"{i},What?,{cell}\r\n" for i, cell in enumerate(cells))
    folder = tmp_path / "set"
    folder.mkdir()
    names = {"file": "a.csv", "gzip": "a.csv.gz", "folder": "a.csv", "split": "train.csv"}
    path = folder / names[form]
    path.write_bytes(gzip.compress(content.encode()) if form == "gzip" else content.encode())
    found = answers(path if form in ("file", "gzip") else folder)
    assert list(found.values()) == [(text,) for text in [*cells[:-2], 'a, "b"', "é"]]


def test_an_empty_cell_is_no_value_and_seconds_are_a_number(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(0.5), 16000)
    (tmp_path / "a.tsv").write_text(
        'id\tquestion\tanswers\taudio\tsystem\tseconds\n1\tQ?\tA\ta.wav\t""\t0.25\n2\tR?\tB\n'
    )
    one, two = HFDataset(str(tmp_path / "a.tsv"), audio_root=str(tmp_path)).read(BadExamples())
    assert (one.system, one.audio, clip_seconds(one)) == (None, tmp_path / "a.wav", 0.25)
    assert (two.system, two.audio, two.answers) == (None, None, ("B",))


@pytest.mark.parametrize(
    ("rows", "place", "reason", "kept"),
    [
        (b"1,Q?,A\n2,Q?,B,C\n3,Q?,D\n", ":3: 4 fields; allowed: at most 3", "ragged row", ["1", "3"]),
        (b"1,Q?,A\n2,O\xf9?,B\n3,Q?,D\n", ":3: not UTF-8 (byte 0xf9", "not UTF-8", ["1", "3"]),
        (b'1,Q?,A\n2,"Q\n\xf9\nR",B\n3,Q?,D\n', ":4: not UTF-8", "not UTF-8", ["1", "3"]),
        (b'1,Q?,A\n2,"Q"R?,B\n3,Q?,D\n', ":3: not CSV (", "bad csv", ["1", "3"]),
        (b'1,Q?,A\n2,Q?,"B\n3,Q?,D\n', ":3: not CSV (unexpected end of data at line 4)", "bad csv", ["1"]),
        (b"1,Q?,A\n2,Q?\n3,Q?,D\n", ':3: "answers" is None', "empty answer", ["1", "3"]),
        (b'1,Q?,A\n2,"two\nlines",B\n4,,D\n', ':5: "question" is None', "empty question", ["1", "2"]),
        (b"1,Q?,A\n\n1,Q?,B\n", ":4: id '1' was already used at", "duplicate id", ["1"]),
    ],
)
@pytest.mark.filterwarnings("ignore:skipped")
def test_bad_rows_of_csv(tmp_path: Path, rows: bytes, place: str, reason: str, kept: list[str]) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(HEADER + rows)
    with pytest.raises(ValueError, match=f"^{re.escape(str(path) + place)}") as caught:
        answers(path)
    assert "allowed: " in str(caught.value)
    bad = BadExamples("skip")
    assert [e.id for e in HFDataset(str(path)).read(bad)] == kept
    lost = 2 if "end of data" in place else 1  # with the row after it, which the open quote takes in
    assert dict(bad.counts) == {reason: lost}


def test_numbers_of_json_and_parquet_are_their_texts(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"answers": 1969}, {"answers": [0, 2.5]}, {"answers": "2020-01-01T00:00:00"}]
    lines = [json.dumps({"id": i, "question": "Q?"} | row) for i, row in enumerate(rows)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    (tmp_path / "b.json").write_text(f"[{','.join(lines)}]")
    expected = {"0": ("1969",), "1": ("0", "2.5"), "2": ("2020-01-01T00:00:00",)}
    assert answers(tmp_path / "a.jsonl") == answers(tmp_path / "b.json") == expected
    table = datasets.Dataset.from_dict({"question": ["Q?"] * 2, "answers": [1969.0, 3.5], "kind": [0, 1]})
    table = table.cast_column("kind", datasets.ClassLabel(names=["year", "share"]))
    table.to_parquet(str(tmp_path / "c.parquet"))
    assert list(answers(tmp_path / "c.parquet").values()) == [("1969",), ("3.5",)]
    assert list(answers(tmp_path / "c.parquet", columns={"answers": "kind"}).values()) == [("year",), ("share",)]


def test_splits_of_a_folder_can_be_sliced_and_added(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_bytes(HEADER + b"1,Q?,A\n2,Q?,007\n")
    (tmp_path / "validation.csv").write_bytes(HEADER + b"3,Q?,NA\n")
    assert answers(tmp_path, split="validation") == {"3": ("NA",)}
    assert answers(tmp_path, split="train[1:]+validation") == {"2": ("007",), "3": ("NA",)}
    with pytest.raises(ValueError, match="no split 'test' among train, validation"):
        answers(tmp_path, split="test")


def test_a_folder_may_describe_its_files(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.csv").write_text("id;question;answers\n1;Q, please?;007\n")
    (tmp_path / "README.md").write_text(
        '---\nconfigs:\n- config_name: x\n  data_files: "data/*.csv"\n  sep: ";"\n---\n'
    )
    assert answers(tmp_path) == {"1": ("007",)}


def parquet(path: Path) -> bytes:
    datasets.Dataset.from_dict({"question": ["Q?"], "answers": ["A"]}).to_parquet(str(path))
    return path.read_bytes()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", r"a\.csv: the header is \[\]"),
        ("a.csv", b"id,question,answers,answers\n", r"a\.csv: the header is .*each once"),
        (
            "a.csv",
            b"id;question;answers\n1;Q?;A\n",
            r"no column 'question'; allowed: columns\.question with one of id;q",
        ),
        (
            "a.csv",
            b"question,solution\nQ?,A\n",
            r"no column 'answers'; allowed: columns\.answers with one of question, s",
        ),
        ("a.jsonl", b'{"id": 1, "question": "Q?", "answers": "A"}\n{"id": 2, "ques', r"a\.jsonl:2: not JSON"),
        ("a.json", b'[{"id": 1},\n {"id": 2]', r"a\.json:2: not JSON"),
        ("a.parquet", b"PAR1", r"HFDataset .*a\.parquet.*magic bytes|smaller than the minimum"),
        ("set/b.parquet", b"PAR1 and nothing more", r"\(.*set/b\.parquet\): "),
        ("set/state.json", b"{", r"\(.*set/state\.json\): "),
        ("set/a.wrong", b"text", r"doesn't contain any data files|No \(supported\) data files"),
    ],
)
def test_a_broken_file_is_one_line_with_its_name(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    if name == "set/b.parquet":
        parquet(tmp_path / "set" / "a.parquet")
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        answers(path if path.parent == tmp_path else path.parent)
    assert "\n" not in str(caught.value)
    assert "allowed: " in str(caught.value)


@pytest.mark.parametrize("metadata", ["metadata.jsonl", "metadata.csv"])
def test_a_folder_of_clips_is_read_with_our_own_decoder(tmp_path: Path, metadata: str) -> None:
    folder = tmp_path / "clips" / "train"
    (folder / "deep").mkdir(parents=True)
    soundfile.write(folder / "a.wav", tone(0.5), 16000)
    soundfile.write(folder / "deep" / "b.flac", tone(1.0), 16000)
    rows = [("a.wav", "Who?", "NA"), ("deep/b.flac", "Where?", "007")]
    if metadata.endswith("csv"):
        text = "file_name,question,answers\n" + "".join(",".join(row) + "\n" for row in rows)
    else:
        text = "".join(
            json.dumps(dict(zip(("file_name", "question", "answers"), row, strict=True))) + "\n" for row in rows
        )
    (folder / metadata).write_text(text)
    one, two = HFDataset(str(tmp_path / "clips")).read(BadExamples())
    assert (one.question, one.answers, two.question, two.answers) == ("Who?", ("NA",), "Where?", ("007",))
    assert (read_waveform(one, 16000).shape, read_waveform(two, 16000).shape) == ((8000,), (16000,))
    assert one.location == f"{folder / metadata}:{2 if metadata.endswith('csv') else 1}"


def test_splits_of_a_folder_of_clips_stay_apart(tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        soundfile.write(tmp_path / split / "a.wav", tone(0.5), 16000)
        row = {"file_name": "a.wav", "question": "Q?", "answers": split}
        (tmp_path / split / "metadata.jsonl").write_text(json.dumps(row))
    for split in ("train", "test"):
        (example,) = HFDataset(str(tmp_path), split=split).read(BadExamples())
        assert (example.answers, example.audio) == ((split,), tmp_path / split / "a.wav")


@pytest.mark.parametrize(
    ("file_name", "message"),
    [("b.wav", "does not exist under"), ("../x.wav", "leads out of"), ("/etc/hosts", "leads out of")],
)
def test_clips_of_a_folder_stay_in_it(tmp_path: Path, file_name: str, message: str) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    for path in (folder / "a.wav", tmp_path / "x.wav"):
        soundfile.write(path, tone(0.5), 16000)
    (folder / "metadata.jsonl").write_text(json.dumps({"file_name": file_name, "question": "Q?", "answers": "A"}))
    with pytest.raises(ValueError, match=rf"metadata\.jsonl:1: .*{message}"):
        HFDataset(str(folder)).read(BadExamples())


def test_a_folder_of_clips_without_questions_says_what_is_missing(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(0.5), 16000)
    with pytest.raises(ValueError, match=r"a folder of clips without their questions; allowed: .*metadata\.jsonl"):
        HFDataset(str(tmp_path)).read(BadExamples())


def test_a_row_without_a_clip_is_a_written_question(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", tone(0.5), 16000)
    clips = [{"bytes": (tmp_path / "a.flac").read_bytes(), "path": None}, None, {"bytes": None, "path": None}]
    rows = {"question": ["Q?"] * 3, "answers": ["A"] * 3, "audio": clips}
    datasets.Dataset.from_dict(rows).save_to_disk(str(tmp_path / "set"))
    heard, written, lost = HFDataset(str(tmp_path / "set")).read(BadExamples())
    assert clip_seconds(heard) == 0.5
    assert (written.audio, written.has("text")) == (None, True)
    with pytest.raises(ValueError, match="neither its bytes nor its path"):
        read_waveform(lost, 16000)


@pytest.mark.parametrize(("written", "on_disk"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_clips_are_found_in_either_form_of_unicode(tmp_path: Path, written: Any, on_disk: Any) -> None:
    name = "Mölière/été.wav"
    clip = tmp_path / unicodedata.normalize(on_disk, name)
    clip.parent.mkdir()
    soundfile.write(clip, tone(0.5), 16000)
    line = {"id": 1, "question": "Q?", "answers": "A", "audio": unicodedata.normalize(written, name)}
    (tmp_path / "m.jsonl").write_text(json.dumps(line))
    (example,) = Manifest(str(tmp_path / "m.jsonl")).read(BadExamples())
    assert example.audio == clip
    assert read_waveform(example, 16000).shape == (8000,)


def test_of_two_forms_on_the_disk_the_written_one_is_taken(tmp_path: Path) -> None:
    names = [unicodedata.normalize(form, "été.wav") for form in ("NFC", "NFD")]
    for name in names:
        (tmp_path / name).touch()
    finder = ClipFinder(tmp_path)
    assert [finder.find(name, "m:1") for name in names] == [tmp_path / name for name in names]
