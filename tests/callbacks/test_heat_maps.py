"""Heat maps reach the loggers: often at first, rarely later, never beyond the cap."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from PIL import Image

from textkeep.callbacks import RunCSVLogger
from textkeep.callbacks.importance.heat_maps import MAX_ROWS, HeatMaps, _rows, is_due
from textkeep.importance.picture import heat_map

KEY = "importance_media/speech/heat_map"


def line(step: int, estimator: str = "taylor", layers: int = 4, probe: str = "speech") -> dict[str, Any]:
    shares = np.random.default_rng(step).dirichlet(np.ones(layers)).tolist()
    return {"step": step, "probe": probe, "estimator": estimator, "shares": shares}


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 8, 40, 80, 300])
def test_the_cap_holds_and_the_gaps_only_grow(limit: int) -> None:
    drawn = [count for count in range(1, 4000) if is_due(count, limit)]
    assert len(drawn) <= limit
    assert drawn[0] == 1
    assert drawn[: limit // 4] == list(range(1, limit // 4 + 1))
    gaps = [b - a for a, b in pairwise(drawn)]
    assert gaps == sorted(gaps)
    assert not is_due(1, 0)


def test_csv_and_tensorboard_get_the_picture_and_others_nothing(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = TensorBoardLogger(tmp_path, name="tb", version="")
    loggers = [RunCSVLogger(tmp_path), board, CSVLogger(tmp_path, name="plain")]
    history = []
    for step in (0, 10, 20):
        history += [line(step), line(step, "fisher")]
        HeatMaps(80).log(loggers, history, step)
    HeatMaps(80).finish(loggers, history, 20)
    board.finalize("success")
    expected = heat_map(
        {e: [x["shares"] for x in history if x["estimator"] == e] for e in ("taylor", "fisher")}, [0, 10, 20]
    )
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "pictures" / f"{KEY}.png")), expected)
    events = EventAccumulator(board.log_dir).Reload()
    images = events.Images(KEY)
    assert [image.step for image in images] == [0, 10, 20]  # the last was due: it is not drawn twice
    assert (images[-1].width, images[-1].height) == (expected.shape[1], expected.shape[0])
    assert not list((tmp_path / "pictures").rglob("*.tmp"))


def test_the_end_is_always_drawn(tmp_path: Path) -> None:
    maps, logger, history = HeatMaps(1), RunCSVLogger(tmp_path), []
    path = tmp_path / "pictures" / f"{KEY}.png"
    for step in range(3):
        history.append(line(step))
        maps.log([logger], history, step)
    early = path.read_bytes()
    maps.finish([logger], history, 2)
    assert path.read_bytes() != early


def test_none_when_none_are_wanted(tmp_path: Path) -> None:
    HeatMaps(0).log([RunCSVLogger(tmp_path)], [line(0)], 0)
    HeatMaps(0).finish([RunCSVLogger(tmp_path)], [line(0)], 0)
    assert not list(tmp_path.iterdir())


def test_a_late_estimator_waits_until_it_has_all_columns(tmp_path: Path) -> None:
    HeatMaps(8).log([RunCSVLogger(tmp_path)], [line(0), line(5), line(5, "fisher")], 5)
    drawn = np.asarray(Image.open(tmp_path / "pictures" / f"{KEY}.png"))
    np.testing.assert_array_equal(drawn, heat_map({"taylor": [line(0)["shares"], line(5)["shares"]]}, [0, 5]))


def test_the_table_keeps_both_ends_and_the_limit_of_rows() -> None:
    lines = [line(step, layers=32) for step in range(1000)]
    rows = _rows(lines)
    assert len(rows) <= MAX_ROWS
    assert (rows[0][0], rows[-1][0]) == (0, 999)
    assert rows[33][:3] == [rows[32][0], 1, "taylor"]
    assert rows[0][3] == pytest.approx(100 * lines[0]["shares"][0], abs=1e-4)
