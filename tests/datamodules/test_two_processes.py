"""Two real processes under DDP: the ranks share the data, and a run continues in mid-epoch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .conftest import ManifestMaker

SCRIPT = """
import json, sys, warnings
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from transformers import AutoTokenizer

from tests.datamodules.conftest import EnergyFrontEnd
from textkeep.datamodules import SpeechTextData

warnings.simplefilter("ignore")
manifest, val, llm, folder, resume, options = sys.argv[1:]


class Recorder(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.front_end = EnergyFrontEnd(AutoTokenizer.from_pretrained(llm))
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen = {"train": [], "val": []}

    def training_step(self, batch, _):
        self.seen["train"].append([batch.modality[0], *batch.ids])
        return self.weight.sum()

    def validation_step(self, batch, _, dataloader_idx=0):
        self.seen["val"].append([batch.modality[0], *batch.ids])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


module = Recorder()
data = SpeechTextData(manifest, val, train_modalities="both", max_examples_per_batch=2, num_workers=1)
trainer = L.Trainer(
    accelerator="cpu", devices=2, strategy="ddp", max_epochs=2, logger=False, num_sanity_val_steps=0,
    enable_progress_bar=False, enable_model_summary=False,
    callbacks=[ModelCheckpoint(folder, filename="{step}", every_n_train_steps=1, save_top_k=-1)],
    **json.loads(options),
)
trainer.fit(module, datamodule=data, ckpt_path=None if resume == "none" else resume)
Path(folder, f"rank{trainer.global_rank}.json").write_text(json.dumps(module.seen))
"""


Seen = list[dict[str, list[list[str]]]]


def run(
    folder: Path, script: Path, train: Path, val: Path, llm: Path, resume: Path | None = None, **options: Any
) -> Seen:
    """What each of two ranks saw."""
    folder.mkdir()
    script.write_text(SCRIPT)
    words = [sys.executable, script, train, val, llm, folder, resume or "none", json.dumps(options)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    subprocess.run([*map(str, words)], check=True, env=environment, timeout=240, capture_output=True)
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.slow
def test_ranks_share_the_data_and_continue(make_manifest: ManifestMaker, tiny_llm_dir: Path, tmp_path: Path) -> None:
    script, path = tmp_path / "run.py", make_manifest(11)
    whole = run(tmp_path / "whole", script, path, path, tiny_llm_dir)
    steps = len(whole[0]["train"]) // 2
    assert len(whole[1]["train"]) == 2 * steps
    for epoch in range(2):
        rows = [(b[0], i) for seen in whole for b in seen["train"][epoch * steps : (epoch + 1) * steps] for i in b[1:]]
        assert sorted(rows) == sorted((m, f"questions-{i}") for i in range(11) for m in ("speech", "text"))
    assert all(a[0] == b[0] for a, b in zip(whole[0]["train"], whole[1]["train"], strict=True))
    validated = [(b[0], i) for seen in whole for b in seen["val"] for i in b[1:]]
    pairs = [(m, f"questions-{i}") for i in range(11) for m in ("speech", "text")]
    assert sorted(validated) == sorted(pairs * 2)  # once in each epoch
    saved = tmp_path / "whole" / f"step={steps + 1}.ckpt"
    rest = run(tmp_path / "rest", script, path, path, tiny_llm_dir, saved)
    assert [seen["train"] for seen in rest] == [seen["train"][steps + 1 :] for seen in whole]


@pytest.mark.slow
def test_limited_epochs_continue_and_one_validation_item_is_enough_for_two_ranks(
    make_manifest: ManifestMaker, tiny_llm_dir: Path, tmp_path: Path
) -> None:
    script, train, val = tmp_path / "run.py", make_manifest(11), make_manifest(1, "val")
    limits = {"limit_train_batches": 3, "accumulate_grad_batches": 2}
    whole = run(tmp_path / "whole", script, train, val, tiny_llm_dir, **limits)
    assert [len(seen["train"]) for seen in whole] == [6, 6]
    assert sorted(tuple(batch) for seen in whole for batch in seen["val"]) == [
        *[("speech", "val-0")] * 2,
        *[("text", "val-0")] * 2,
    ]
    rest = run(tmp_path / "rest", script, train, val, tiny_llm_dir, tmp_path / "whole" / "step=2.ckpt", **limits)
    assert [seen["train"] for seen in rest] == [seen["train"][3:] for seen in whole]  # the second epoch, from its start
