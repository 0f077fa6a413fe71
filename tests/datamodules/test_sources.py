from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import datasets
import pytest
import soundfile

from textkeep.datamodules.sources.audio import clip_seconds, read_waveform
from textkeep.datamodules.sources.bad_examples import BadExamples
from textkeep.datamodules.sources.hf_dataset import HFDataset
from textkeep.datamodules.sources.llama_omni import LlamaOmniJSON

from .conftest import tone


def encoded(seconds: float) -> dict[str, Any]:
    buffer = io.BytesIO()
    soundfile.write(buffer, tone(seconds), 16000, format="FLAC")
    return {"bytes": buffer.getvalue(), "path": None}


@pytest.fixture
def table() -> datasets.Dataset:
    rows = {
        "prompt": ["What?", "Who?", "Where?"],
        "answer": [{"aliases": ["This", "that"]}, {"aliases": ["Me"]}, {"aliases": ["Here"]}],
        "clip": [encoded(0.5), encoded(1.0), encoded(1.5)],
        "topic": ["a", "b", "c"],
    }
    return datasets.Dataset.from_dict(rows).cast_column("clip", datasets.Audio(decode=False))


COLUMNS = {"question": "prompt", "answers": "answer.aliases", "audio": "clip"}


@pytest.mark.parametrize("form", ["saved", "splits", "folder", "parquet"])
def test_hugging_face_data_from_disk(table: datasets.Dataset, tmp_path: Path, form: str) -> None:
    if form == "saved":
        table.save_to_disk(str(tmp_path / "set"))
    elif form == "splits":
        datasets.DatasetDict({"train": table}).save_to_disk(str(tmp_path / "set"))
    else:
        table.to_parquet(str(tmp_path / "set" / "train.parquet"))
    path = tmp_path / "set" / "train.parquet" if form == "parquet" else tmp_path / "set"
    examples = HFDataset(str(path), columns=COLUMNS).read(BadExamples())
    assert [example.question for example in examples] == ["What?", "Who?", "Where?"]
    assert examples[0].answers == ("This", "that")
    assert examples[1].metadata == {"topic": "b"}
    assert examples[2].location == f"{path}[train]:2"
    assert examples[2].id == f"{path.name}/train/2"
    assert clip_seconds(examples[1]) == 1.0
    assert read_waveform(examples[2], 16000).shape == (24000,)


def test_json_with_paths_of_clips(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(0.5), 16000)
    rows = [{"id": i, "question": "Q?", "answers": "x", "audio": "a.wav", "seconds": 0.5} for i in range(2)]
    rows.append({"id": 2, "question": "Q?", "answers": "x", "audio": "b.wav", "seconds": 0.5})
    (tmp_path / "set.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    bad = BadExamples("skip")
    with pytest.warns(UserWarning, match=r"set\.jsonl:3: \"audio\" 'b\.wav' does not exist"):
        examples = HFDataset(str(tmp_path / "set.jsonl"), audio_root=str(tmp_path)).read(bad)
    assert [(e.id, e.audio, e.answers) for e in examples] == [(str(i), tmp_path / "a.wav", ("x",)) for i in range(2)]
    assert dict(bad.counts) == {"missing file": 1}


def test_an_undescribed_clip_column_is_not_decoded(table: datasets.Dataset, tmp_path: Path) -> None:
    table.save_to_disk(str(tmp_path / "set"))
    columns = {"question": "prompt", "answers": "answer.aliases"}
    examples = HFDataset(str(tmp_path / "set"), columns=columns).read(BadExamples())
    assert all(example.audio is None for example in examples)
    assert set(examples[0].metadata) == {"topic"}


def test_wrong_hugging_face_settings_are_named(table: datasets.Dataset, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"HFDataset\.columns: sound unknown \(allowed: id, question, answers"):
        HFDataset("x", columns={"sound": "clip"})
    datasets.DatasetDict({"train": table}).save_to_disk(str(tmp_path / "set"))
    with pytest.raises(ValueError, match=r"columns\.audio: no column 'sound' \(allowed: prompt, answer, clip, topic\)"):
        HFDataset(str(tmp_path / "set"), columns={"audio": "sound"}).read(BadExamples())
    with pytest.raises(ValueError, match="split 'test': no split 'test' among train"):
        HFDataset(str(tmp_path / "set"), split="test").read(BadExamples())
    with pytest.raises(ValueError, match=r"HFDataset 'no/such-set', split 'train': .*\(allowed: a hub id"):
        HFDataset("no/such-set").read(BadExamples())
    (tmp_path / "set.xml").touch()
    with pytest.raises(ValueError, match=r"unknown kind of file '\.xml'"):
        HFDataset(str(tmp_path / "set.xml")).read(BadExamples())


@pytest.fixture
def omni(tmp_path: Path) -> Path:
    soundfile.write(tmp_path / "q.wav", tone(0.5), 16000)
    instruction = "<speech>\nPlease directly answer the questions in the user's speech."
    reply = {"from": "gpt", "value": "Paris."}
    items = [
        {"id": "a", "speech": "q.wav", "conversations": [{"from": "human", "value": instruction}, reply], "lang": "en"},
        {
            "id": "b",
            "speech": "q.wav",
            "text": "Where?",
            "conversations": [{"from": "human", "value": "<speech>"}, reply],
        },
        {"id": "c", "conversations": [{"from": "human", "value": "Where is it?"}, reply]},
        {
            "id": "d",
            "conversation": [{"from": "human", "speech": "q.wav", "text": "Who?"}, {"from": "gpt", "text": "I."}],
        },
    ]
    path = tmp_path / "omni.json"
    path.write_text(json.dumps(items))
    return path


def test_llama_omni_items(omni: Path) -> None:
    a, b, c, d = LlamaOmniJSON(str(omni)).read(BadExamples())
    assert (a.question, a.target, a.metadata) == ("", "Paris.", {"lang": "en"})
    assert a.has("speech")
    assert not a.has("text")  # the text after <speech> is an instruction, not the question
    assert (b.question, b.has("speech"), b.has("text")) == ("Where?", True, True)
    assert (c.question, c.has("speech")) == ("Where is it?", False)
    assert (d.question, d.target, d.has("speech")) == ("Who?", "I.", True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"id": "a"}]', r"omni\.json\[0\]: no conversation; allowed: a list of turns that starts with human, gpt"),
        ('[{"id": "a", "conversations": [{"from": "gpt"}]}]', "no conversation"),
        ('[{"id": "a", "conversations": [{"from": "human", "value": "Q"}]}]', '"answers" is '),
        (
            '[{"id": "a", "speech": "z.wav", "conversations": [{"from": "human"}, {"from": "gpt"}]}]',
            "'z.wav' does not exist",
        ),
        ("[{]", r"omni\.json:1: not JSON"),
        ("{}", "a JSON dict; allowed: a list of items"),
    ],
)
def test_bad_llama_omni_items_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "omni.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        LlamaOmniJSON(str(tmp_path / "omni.json")).read(BadExamples())
    with pytest.raises(FileNotFoundError, match="no such file"):
        LlamaOmniJSON(str(tmp_path / "none.json")).read(BadExamples())
