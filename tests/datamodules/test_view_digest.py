"""A run that is continued with other examples says so, whatever kind of source they come from."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from textkeep.datamodules import HFDataset, Replay, SpeechTextData
from textkeep.datamodules.sources.named import Sources

from .conftest import EnergyFrontEnd, ManifestMaker

OTHER = (
    r"^data\.train or data\.replay holds other examples than when the checkpoint was made \(\d+ rows then, \d+ now\)"
)


def loader(front_end: EnergyFrontEnd, train: Sources, **options: Any) -> Any:
    data = SpeechTextData(train=train, train_modalities="both", max_examples_per_batch=2, **options)
    data.connect(front_end)
    return data.train_dataloader()


def change(path: Path, number: int, **values: Any) -> None:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[number] |= values
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize(
    "values", [{"question": "What is 8 plus 8?"}, {"answers": ["7"]}, {"target": "It is 8."}, {"system": "Be brief."}]
)
def test_one_other_line_of_a_manifest_is_noticed(
    make_manifest: ManifestMaker, front_end: EnergyFrontEnd, values: dict[str, Any]
) -> None:
    path = make_manifest(6)
    state = loader(front_end, str(path)).state_dict()
    change(path, 4, **values)
    with pytest.warns(UserWarning, match=OTHER):
        loader(front_end, str(path)).load_state_dict(state)


def test_the_same_examples_are_continued_without_a_word(
    make_manifest: ManifestMaker, front_end: EnergyFrontEnd, tmp_path: Path
) -> None:
    path = make_manifest(6)
    state = loader(front_end, str(path)).state_dict()
    assert all(isinstance(value, int | str) for value in state.values())  # what weights_only loads
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    (tmp_path / "clips").rename(moved / "clips")
    path.rename(moved / "other.jsonl")
    change(moved / "other.jsonl", 0, category="new")  # what is not trained on may change
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        same = loader(front_end, str(moved / "other.jsonl"))
        same.load_state_dict(state)
        same.load_state_dict({name: state[name] for name in ("epoch", "batches", "of")})  # of an earlier version


def test_other_lines_of_a_data_set_a_list_and_a_replayed_text_are_noticed(
    make_manifest: ManifestMaker, front_end: EnergyFrontEnd, tmp_path: Path
) -> None:
    rows = tmp_path / "table" / "train.jsonl"
    rows.parent.mkdir()
    rows.write_text(
        "".join(json.dumps({"id": f"t{i}", "question": f"{i}?", "answers": ["a"]}) + "\n" for i in range(4))
    )
    text = tmp_path / "prose.txt"
    text.write_text("A first paragraph.\n\nA second one.\n")
    train: Sources = [str(make_manifest(3)), HFDataset(path=str(rows.parent), split="train")]
    replay = Replay(str(text), 0.3)
    state = loader(front_end, train, replay=replay).state_dict()
    with pytest.warns(UserWarning, match=OTHER):
        loader(front_end, train[:1], replay=replay).load_state_dict(state)  # type: ignore[index]
    text.write_text("A first paragraph.\n\nA third one.\n")
    with pytest.warns(UserWarning, match=OTHER):
        loader(front_end, train, replay=replay).load_state_dict(state)
    text.write_text("A first paragraph.\n\nA second one.\n")
    change(rows, 2, answers=["b"])
    again: Sources = [train[0], HFDataset(path=str(rows.parent), split="train")]  # type: ignore[index]
    other = loader(front_end, again, replay=replay)
    with pytest.warns(UserWarning, match=OTHER):
        other.load_state_dict(state)
