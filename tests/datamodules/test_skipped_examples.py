"""Examples that were left out are counted over two real ranks, each of which meets some of them alone."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import lightning as L
import pytest
from lightning.pytorch import Trainer

from textkeep.callbacks import SkippedExamples
from textkeep.foundation.run_names import SKIPPED

from .conftest import ManifestMaker

SCRIPT = """
import sys, warnings
import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from transformers import AutoTokenizer
from tests.datamodules.conftest import EnergyFrontEnd
from textkeep.callbacks import RunCSVLogger, SkippedExamples
from textkeep.datamodules import SpeechTextData

warnings.simplefilter("ignore")
manifest, llm, folder, steps, resume = sys.argv[1:]


class Listener(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.front_end = EnergyFrontEnd(AutoTokenizer.from_pretrained(llm))
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch, _):
        return self.weight.sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


data = SpeechTextData(manifest, max_examples_per_batch=1, num_workers=1, on_bad_example="skip")
trainer = L.Trainer(
    accelerator="cpu", devices=2, strategy="ddp", max_steps=int(steps), logger=RunCSVLogger(folder),
    enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=2,
    callbacks=[SkippedExamples(), ModelCheckpoint(folder, save_last=True, every_n_train_steps=1)],
)
trainer.fit(Listener(), datamodule=data, ckpt_path=resume or None)
"""


def run(tmp_path: Path, manifest: Path, llm: Path, steps: int, resume: str = "") -> tuple[list[float], str]:
    """The counts that were logged, and what was said."""
    script = tmp_path / "two.py"
    script.write_text(SCRIPT)
    words = [sys.executable, script, manifest, llm, tmp_path / "run", steps, resume]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*map(str, words)], env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "run/metrics.csv").open() as file:
        counts = [float(row[SKIPPED]) for row in csv.DictReader(file) if row.get(SKIPPED)]
    return counts, done.stdout + done.stderr


@pytest.mark.slow
def test_two_ranks_count_each_example_once(make_manifest: ManifestMaker, tiny_llm_dir: Path, tmp_path: Path) -> None:
    path = make_manifest(12)
    for number in range(5):
        (tmp_path / "clips" / f"questions-{number}.wav").write_bytes(b"RIFF, but no more")
    with path.open("a") as file:
        file.write(json.dumps({"id": "no question"}) + "\n")  # every rank reads the line: it is one all the same
    counts, said = run(tmp_path, path, tiny_llm_dir, 12)  # two epochs
    assert counts[-1] == 6
    assert counts == sorted(counts)
    line = "left out: 6 examples (5 corrupt clip, 1 empty question); data.on_bad_example raise names the first"
    assert said.count(line) == 1
    more, said = run(tmp_path, path, tiny_llm_dir, 14, str(tmp_path / "run/last.ckpt"))
    assert more[-1] == 6  # a continued run counts on
    assert said.count(line) == 1


class Data(L.LightningDataModule):
    """Leaves out what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.left_out: dict[str, str] = {}


def test_it_says_what_it_knows_when_a_run_ends_early(caplog: pytest.LogCaptureFixture) -> None:
    trainer, told = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False), SkippedExamples()
    trainer.datamodule = Data()  # type: ignore[attr-defined]
    trainer.datamodule.left_out = {"m:3": "corrupt clip"}  # type: ignore[attr-defined]
    module = L.LightningModule()
    told.on_train_start(trainer, module)
    with caplog.at_level("INFO", "lightning.pytorch.utilities.rank_zero"):
        told.on_exception(trainer, module, ValueError())
        told.teardown(trainer, module, "fit")
    assert [record.getMessage() for record in caplog.records].count(
        "left out: 1 example (1 corrupt clip); data.on_bad_example raise names the first"
    ) == 1
