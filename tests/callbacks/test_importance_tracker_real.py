"""The tracker on the real SpeechLLM and data module, on one process and on two."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.support.speech_run import make_data, make_model, make_trainer
from textkeep.callbacks import ImportanceTracker
from textkeep.datamodules import Probe
from textkeep.importance import Snapshot, compare

ROOT = Path(__file__).parents[2]


def fit(folder: Path, llm: Path, whisper: Path, data_folder: Path, **options) -> None:
    probes = {
        "heldout_text": Probe(str(data_folder / "val.jsonl"), "text", examples=5, batch_size=2),
        "speech": Probe(str(data_folder / "val.jsonl"), "speech", examples=5, batch_size=2),
    }
    trainer = make_trainer(folder, [ImportanceTracker(replicates=20)], max_epochs=1, **options)
    trainer.fit(make_model(llm, whisper), datamodule=make_data(data_folder, probes=probes))


@pytest.mark.slow
def test_speech_and_text_probes_on_one_and_two_processes(
    tmp_path: Path, tiny_llm_dir: Path, tiny_whisper_dir: Path
) -> None:
    data_folder = tmp_path / "data"
    data_folder.mkdir()
    fit(tmp_path / "one", tiny_llm_dir, tiny_whisper_dir, data_folder)
    command = [sys.executable, "-m", "tests.callbacks.test_importance_tracker_real"]
    arguments = [str(p) for p in (tmp_path / "two", tiny_llm_dir, tiny_whisper_dir, data_folder)]
    subprocess.run(
        [*command, *arguments], cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True, timeout=280
    )
    for name in ("heldout_text", "speech"):
        first = Snapshot.load(tmp_path / "one/importance" / name / "step=000000")
        second = Snapshot.load(tmp_path / "two/importance" / name / "step=000000")
        assert (first.meta["world_size"], second.meta["world_size"]) == (1, 2)
        for estimator in first.estimators:
            np.testing.assert_allclose(first.scores(estimator), second.scores(estimator), rtol=1e-4)
        assert compare(first, second, "taylor").metrics["js"].value < 1e-4
        assert len(list((tmp_path / "two/importance" / name).iterdir())) == 2


if __name__ == "__main__":
    run, *rest = (Path(argument) for argument in sys.argv[1:])
    fit(run, *rest, devices=2, strategy="ddp")
