"""What counts as an answer: texts and numbers, never null, true or a list in a list."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from textkeep.datamodules.sources.bad_examples import BadExampleError, BadExamples
from textkeep.datamodules.sources.llama_omni import LlamaOmniJSON
from textkeep.datamodules.sources.manifest import Manifest
from textkeep.datamodules.sources.source import build_example


def example(**record: Any) -> Any:
    return build_example({"id": 1, "question": "Q?", **record}, None, "m:1", "m")


@pytest.mark.parametrize(
    ("record", "answers", "target"),
    [
        ({"answers": 1969}, ("1969",), "1969"),
        ({"answers": [0, 1969.0, 2.5, -1]}, ("0", "1969", "2.5", "-1"), "0"),
        ({"answers": 10**20}, ("100000000000000000000",), "100000000000000000000"),
        ({"answers": 1e300}, ("1e+300",), "1e+300"),
        ({"answers": 10**400}, (f"1{'0' * 400}",), f"1{'0' * 400}"),  # no float holds it
        ({"answers": [2**53 + 1]}, ("9007199254740993",), "9007199254740993"),
        ({"answers": ["null", "NA", "false"]}, ("null", "NA", "false"), "null"),
        ({"answers": None, "target": 7}, ("7",), "7"),
        ({"target": 0}, ("0",), "0"),
        ({"answers": "A", "target": 0}, ("A",), "0"),
        ({"answers": " A ", "target": " \u2028 "}, ("A",), "A"),  # an empty target would be learned as silence
    ],
)
def test_numbers_are_their_texts(record: dict[str, Any], answers: tuple[str, ...], target: str) -> None:
    built = example(**record)
    assert (built.answers, built.target) == (answers, target)


@pytest.mark.parametrize(
    "given", [None, True, [None], [["A"]], {"text": "A"}, [], "", " \u2028", [float("nan")], ["A", ""]]
)
def test_what_is_no_answer_is_named(given: Any) -> None:
    with pytest.raises(BadExampleError, match='"answers" is ') as caught:
        example(answers=given)
    assert caught.value.reason == "empty answer"


def test_a_near_key_is_named() -> None:
    with pytest.raises(BadExampleError, match='there is "answer", which should be named "answers"'):
        example(answer="A")


@pytest.mark.parametrize(("given", "expected"), [(7, "7"), ("7", "7"), (7.0, "7"), (0, "0")])
def test_ids_are_texts(given: Any, expected: str) -> None:
    assert example(id=given, answers="A").id == expected


@pytest.mark.parametrize("given", [None, True, "", [1], float("nan")])
def test_what_is_no_id_is_named(given: Any) -> None:
    with pytest.raises(BadExampleError, match='"id" is '):
        example(id=given, answers="A")


def test_a_number_and_a_text_of_one_id_are_the_same_id(tmp_path: Path) -> None:
    lines = [json.dumps({"id": given, "question": "Q?", "answers": "A"}) for given in (1, "1")]
    (tmp_path / "m.jsonl").write_text("\n".join(lines))
    with pytest.raises(BadExampleError, match=r"m\.jsonl:2: id '1' was already used at .*m\.jsonl:1"):
        Manifest(str(tmp_path / "m.jsonl")).read(BadExamples())


@pytest.mark.filterwarnings("ignore:skipped")
def test_bad_items_of_llama_omni_are_left_out_one_by_one(tmp_path: Path) -> None:
    def item(name: str, question: Any = "Q?") -> dict[str, Any]:
        return {"id": name, "conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": "A"}]}

    broken = [
        7,
        {"id": "b", "conversations": ["x", {"from": "human", "value": "Q?"}]},
        {"id": "c", "conversations": {}},
    ]
    items = [item("a"), *broken, item("d", "\ud83d"), item("e", "one\u2028two\u0085"), item("a")]
    path = tmp_path / "omni.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(items, indent=1).encode())
    bad = BadExamples("skip")
    read = LlamaOmniJSON(str(path)).read(bad)
    assert [(e.id, e.question) for e in read] == [("a", "Q?"), ("e", "one\u2028two")]
    assert dict(bad.counts) == {"bad conversation": 3, "lone surrogate": 1, "duplicate id": 1}
    path.write_bytes(json.dumps([item("a")], indent=1).encode()[:-20] + b"\xe9")
    with pytest.raises(ValueError, match=r"omni\.json:\d+: not UTF-8"):
        LlamaOmniJSON(str(path)).read(bad)
