"""Two processes under DDP learn what one process learns on the same global batches."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.speech_run import write_manifest

SCRIPT = """
import json, sys, warnings
from pathlib import Path

import lightning as L
import torch

from textkeep.callbacks import ImportanceTracker
from textkeep.datamodules import Probe, SpeechTextData
from textkeep.datamodules.batches.token_budget_sampler import TokenBudgetSampler
from textkeep.lightning_modules import L2SP, AnswerCrossEntropy, ConcatMLP, SpeechLLM, WhisperEncoder

warnings.simplefilter("ignore")
manifest, llm, whisper, folder, ranks = sys.argv[1:]
ranks = int(ranks)
if ranks == 1:  # the two ranks' batches, one after the other, as two accumulation steps
    def both(self, epoch):
        parts = [TokenBudgetSampler(self.lengths, self.tokens_per_batch, self.max_examples, self._kinds, self.seed,
                                    self.shuffle, rank, 2) for rank in range(2)]
        return [batch for step in zip(*(own(part, epoch) for part in parts)) for batch in step]
    own = TokenBudgetSampler.batches
    TokenBudgetSampler.batches = lambda self, epoch: (
        both(self, epoch) if self.world_size == 1 and self.shuffle else own(self, epoch))

L.seed_everything(0)
model = SpeechLLM(llm, WhisperEncoder(whisper), ConcatMLP(5, 16), optimizer=lambda g: torch.optim.SGD(g, lr=0.3),
                  objectives=[AnswerCrossEntropy(), L2SP(0.5)])
data = SpeechTextData(manifest, manifest, train_modalities="both", max_examples_per_batch=3, speech_instruction="",
                      probes={"speech": Probe(manifest, "speech", 6)})
trainer = L.Trainer(
    accelerator="cpu", devices=ranks, strategy="ddp" if ranks > 1 else "auto", max_epochs=2, logger=False,
    num_sanity_val_steps=0, accumulate_grad_batches=1 if ranks > 1 else 2, enable_checkpointing=False,
    enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder, gradient_clip_val=1.0,
    callbacks=[ImportanceTracker(estimators=["taylor", "fisher", "signed_taylor"])], use_distributed_sampler=False,
)
trainer.fit(model, data)
losses = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
state = {k: v.double().sum().item() for k, v in model.state_dict().items()}
Path(folder, f"rank{trainer.global_rank}.json").write_text(
    json.dumps({"steps": trainer.global_step, "losses": losses, "state": state}))
"""


@pytest.mark.slow
def test_losses_weights_and_importance_equal_one_process(
    tiny_llm_dir: Path, tiny_whisper_dir: Path, tmp_path: Path
) -> None:
    script = tmp_path / "run.py"
    script.write_text(SCRIPT)
    manifest = write_manifest(tmp_path, "train", 11)

    def run(ranks: int) -> list[dict[str, dict[str, float]]]:
        folder = tmp_path / str(ranks)
        folder.mkdir()
        words = [sys.executable, script, manifest, tiny_llm_dir, tiny_whisper_dir, folder, ranks]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
        done = subprocess.run([str(w) for w in words], env=environment, timeout=280, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(ranks)]

    (one,), two = run(1), run(2)
    assert two[0]["state"] == two[1]["state"]  # the ranks agree bit for bit
    assert one["steps"] == two[0]["steps"]
    assert one["losses"] == pytest.approx(two[0]["losses"], rel=1e-5)
    assert one["state"] == pytest.approx(two[0]["state"], rel=1e-4, abs=1e-4)
    lines = [
        [json.loads(line) for line in (tmp_path / str(n) / "importance" / "summary.jsonl").read_text().splitlines()]
        for n in (1, 2)
    ]
    assert len(lines[0]) == len(lines[1]) > 3
    for a, b in zip(*lines, strict=True):
        assert (a["step"], a["probe"], a["estimator"]) == (b["step"], b["probe"], b["estimator"])
        assert a["total"] == pytest.approx(b["total"], rel=1e-3)
