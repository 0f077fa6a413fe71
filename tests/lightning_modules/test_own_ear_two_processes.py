"""An audio LLM through its own ear under DDP: batches of speech and of text, all of it trains, and the ranks agree."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.speech_run import write_manifest
from tests.support.tiny_audio_llms import write_tiny_audio_llm

SCRIPT = """
import hashlib, json, sys, warnings
from pathlib import Path

import lightning as L
import torch

from textkeep.datamodules import SpeechTextData
from textkeep.lightning_modules import FullFineTuning, OwnEar, SpeechLLM

warnings.simplefilter("ignore")
manifest, llm, folder, ranks = sys.argv[1:]
ranks = int(ranks)
L.seed_everything(0)
model = SpeechLLM(llm, ear=OwnEar(), tuning=FullFineTuning(train_encoder=True),
                  optimizer=lambda g: torch.optim.SGD(g, lr=0.1))
data = SpeechTextData(manifest, manifest, train_modalities="both", max_examples_per_batch=2, speech_instruction="")
trainer = L.Trainer(
    accelerator="cpu", devices=ranks, strategy="ddp" if ranks > 1 else "auto", max_steps=4, logger=False,
    num_sanity_val_steps=0, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    default_root_dir=folder, use_distributed_sampler=False, limit_val_batches=0,
)
def digest():
    return hashlib.sha256(b"".join(t.numpy().tobytes() for _, t in sorted(model.state_dict().items()))).hexdigest()
trainer.fit(model, data)

Path(folder, f"rank{trainer.global_rank}.json").write_text(
    json.dumps({"steps": trainer.global_step, "digest": digest()}))
"""


@pytest.mark.slow
def test_the_ranks_agree_bit_for_bit(tmp_path: Path) -> None:
    script = tmp_path / "run.py"
    script.write_text(SCRIPT)
    manifest = write_manifest(tmp_path, "train", 11)
    llm = write_tiny_audio_llm("qwen2_5_omni_thinker", tmp_path / "llm")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    words = [str(word) for word in (sys.executable, script, manifest, llm, tmp_path, 2)]
    done = subprocess.run(words, env=environment, timeout=280, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2)]
    assert one == two
    assert one["steps"] == 4
