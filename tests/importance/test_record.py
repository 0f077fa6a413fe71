"""The fingerprint of a probe knows what was measured, and the summary what a resumed run keeps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from textkeep.importance.record import identities
from textkeep.importance.summary import SummaryFile

IDS = torch.tensor([[5, 6, 7, 8], [5, 6, 7, 8]])
LABELS = torch.tensor([[-100, -100, 7, 8], [-100, 6, 7, 8]])
MASK = torch.ones(2, 4, dtype=torch.long)


def keys(ids: torch.Tensor = IDS, labels: torch.Tensor = LABELS, mask: torch.Tensor = MASK, names=("a", "b")) -> list:
    return identities({"input_ids": ids, "ids": list(names)}, labels, mask)[1]


def test_an_example_is_known_by_name_question_and_answer() -> None:
    assert len(set(keys())) == 2
    other_question, other_answer = IDS.clone(), LABELS.clone()
    other_question[0, 0], other_answer[0, 3] = 4, 9
    for changed in (keys(ids=other_question), keys(labels=other_answer), keys(names=("c", "b"))):
        assert changed[0] != keys()[0]
        assert changed[1] == keys()[1]


@pytest.mark.parametrize("left", [False, True])
def test_padding_does_not_change_an_example(left: bool) -> None:
    sides = (2, 0) if left else (0, 2)
    padded = [torch.nn.functional.pad(t, sides, value=v) for t, v in ((IDS, 3), (LABELS, -100), (MASK, 0))]
    assert keys(*padded) == keys()


def test_a_resumed_run_keeps_the_lines_up_to_its_step(tmp_path: Path) -> None:
    file = SummaryFile(tmp_path / "summary.jsonl")
    lines = [{"step": step, "probe": "p", "estimator": e} for step in (0, 10, 20) for e in ("taylor", "fisher")]
    file.put(lines)
    file.keep_until(10)
    assert [line["step"] for line in file.read()] == [0, 0, 10, 10]
    file.put([{**lines[2], "loss": 1.0}])
    assert [(line["step"], line["estimator"]) for line in file.read()] == [
        (0, "taylor"), (0, "fisher"), (10, "fisher"), (10, "taylor"),
    ]  # fmt: skip
    file.path.write_text(file.path.read_text() + '{"step": 20, "pro')  # a crash in the middle of a line
    assert len(file.read()) == 4


def test_snapshots_of_later_steps_go_with_their_lines(tmp_path: Path) -> None:
    file = SummaryFile(tmp_path / "summary.jsonl")
    file.put([{"step": step, "probe": "p", "estimator": "taylor"} for step in (0, 10)])
    for folder in ("p/step=000000", "p/step=000010", "p/step=000020", "q/step=000015", "p/mine", "verification"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "meta.json").write_text("{}")
    (tmp_path / "verification" / "step=000020.json").write_text("{}")
    file.keep_until(10)  # step 20 was lost between its snapshot and its line
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.glob("*/*") if path.name != "meta.json")
    assert left == ["p/mine", "p/step=000000", "p/step=000010", "verification/step=000020.json"]
