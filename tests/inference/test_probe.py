"""``LoadedModel.probe`` of a run is what ``ImportanceTracker`` measured in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.measured_runs import PROBED, STEPS, MeasuredRun
from textkeep.foundation.errors import UserError
from textkeep.importance import Snapshot
from textkeep.inference import load, read_examples

MEASURED = [
    *((kind, modality) for kind in ("full", "lora", "turns") for modality in ("text", "speech")),
    ("positions", "text"),
]


@pytest.mark.parametrize(("kind", "modality"), MEASURED)
def test_it_is_the_snapshot_of_the_run(
    kind: str, modality: Any, measured_run: MeasuredRun, tiny_manifest: Path
) -> None:
    run = measured_run(kind)
    recorded = Snapshot.load(run / f"importance/{modality}/step={STEPS:06d}")
    found = load(run, "cpu").probe(str(tiny_manifest), modality, count=PROBED)
    assert found.step == STEPS
    assert found.meta["probe"] == recorded.meta["probe"]  # the same examples, tokens and ids
    assert [matrix.name for matrix in found.table] == [matrix.name for matrix in recorded.table]
    np.testing.assert_allclose(found.losses, recorded.losses, rtol=1e-5)
    for estimator in recorded.estimators:
        np.testing.assert_allclose(found.scores(estimator), recorded.scores(estimator), rtol=1e-4)
    untouched = Snapshot.load(run / f"importance/{modality}/step=000000")
    moved = not np.allclose(found.scores("taylor"), untouched.scores("taylor"), rtol=1e-2)
    assert moved == ((kind, modality) not in [("turns", "text"), ("positions", "text")])


def test_a_gate_on_positions_has_no_one_matrix_for_speech(measured_run: MeasuredRun, tiny_manifest: Path) -> None:
    model = load(measured_run("positions"), "cpu")
    assert not (measured_run("positions") / "importance/speech").exists()  # the tracker leaves it out too
    with pytest.raises(UserError, match="acts on some positions only, so speech meets no one matrix a layer") as caught:
        model.probe(str(tiny_manifest), "speech")
    assert "\n" not in str(caught.value)


def test_examples_and_their_source_are_one(tiny_llm_dir: Path, tiny_manifest: Path) -> None:
    model = load(tiny_llm_dir, "cpu")
    told: list[tuple[str, int, int]] = []
    by_name = model.probe(
        str(tiny_manifest), estimators=("taylor",), batch_size=4, progress=lambda *news: told.append(news), name="facts"
    )
    given = model.probe(read_examples(str(tiny_manifest)), estimators=("taylor",), step=7)
    np.testing.assert_allclose(by_name.scores("taylor"), given.scores("taylor"), rtol=1e-5)
    assert (by_name.meta["name"], by_name.step, given.step) == ("facts", 0, 7)
    assert told == [("measuring", 0, 2), ("measuring", 1, 2), ("measuring", 2, 2)]
