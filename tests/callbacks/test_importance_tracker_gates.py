"""The tracker on a run with gated adapters: each probe meets the weights that act on its examples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.lora_models import build, wake
from tests.support.speech_run import make_data, make_trainer
from textkeep.callbacks import ImportanceTracker
from textkeep.datamodules import Probe
from textkeep.importance import Snapshot, probe
from textkeep.lightning_modules import LoRA, SpeechGate, SpeechLLM, SpeechPositions, SpeechTurns


def fit(run: Path, gate: SpeechGate, folders: tuple[Path, Path]) -> tuple[SpeechLLM, Any, ImportanceTracker]:
    model = wake(build(LoRA(r=2, gate=gate), *folders))
    source = str(run / "data/val.jsonl")
    probes = {name: Probe(source, name, examples=4, batch_size=2) for name in ("text", "speech")}
    data = make_data(run / "data", probes=probes)
    tracker = ImportanceTracker(estimators=("taylor",), replicates=0)
    make_trainer(run, [tracker], max_epochs=1, limit_val_batches=0).fit(model, data)
    return model, data, tracker


@pytest.mark.parametrize("gate", [SpeechPositions, SpeechTurns])
def test_text_probes_score_the_base_model_whatever_was_learned(
    gate: type[SpeechGate], tmp_path: Path, tiny_llm_dir: Path, tiny_whisper_dir: Path
) -> None:
    model, data, tracker = fit(tmp_path, gate(), (tiny_llm_dir, tiny_whisper_dir))
    steps = sorted((tmp_path / "importance/text").iterdir())
    first, last = (Snapshot.load(folder) for folder in (steps[0], steps[-1]))
    assert first.step < last.step
    np.testing.assert_array_equal(first.scores("taylor"), last.scores("taylor"))
    spoken = tmp_path / "importance/speech"
    assert spoken.exists() == (gate is SpeechTurns)
    assert {line["probe"] for line in tracker.history} == ({"text", "speech"} if spoken.exists() else {"text"})
    if gate is SpeechTurns:
        found = Snapshot.load(sorted(spoken.iterdir())[-1])
        batches = [{**model.embed(b), "ids": b.ids} for b in data.probe_batches("speech")]
        with model.tuning.gate.open():
            expected = probe(model.llm, batches, ("taylor",))
        np.testing.assert_allclose(found.scores("taylor"), expected.scores("taylor"), rtol=1e-5)
        shut = probe(model.llm, batches, ("taylor",))
        assert not np.allclose(found.scores("taylor"), shut.scores("taylor"), rtol=0.01)
