"""An interrupted run goes on as if it had not been interrupted, loss by loss, with adapters too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.speech_run import Losses, make_data, make_trainer
from textkeep.lightning_modules import ConcatMLP, LoRA, SpeechLLM, SpeechPositions, SpeechTurns, WhisperEncoder
from textkeep.lightning_modules.tuning import Tuning

STRATEGIES: dict[str, Callable[[], Tuning]] = {
    "lora": lambda: LoRA(r=2),
    "dora": lambda: LoRA(r=2, use_dora=True),
    "positions": lambda: LoRA(r=2, gate=SpeechPositions()),
    "turns": lambda: LoRA(r=2, gate=SpeechTurns()),
}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_resumed_run_repeats_every_loss(
    strategy: str, tmp_path: Path, tiny_llm_dir: Path, tiny_whisper_dir: Path
) -> None:
    data = make_data(tmp_path / "data")
    saved = tmp_path / "five.ckpt"

    def fit(seed: int, checkpoint: Path | None) -> tuple[list[float], SpeechLLM]:
        losses = Losses(None if checkpoint else saved, 5)
        trainer = make_trainer(tmp_path / "run", [losses], max_steps=8, max_epochs=-1, limit_val_batches=0)
        torch.manual_seed(seed)  # nothing may hang on how the resumed run was initialised
        model = SpeechLLM(
            str(tiny_llm_dir),
            WhisperEncoder(str(tiny_whisper_dir)),
            ConcatMLP(stack=5, hidden=16),
            STRATEGIES[strategy](),
            optimizer=lambda groups: torch.optim.AdamW(groups, lr=0.02),
            gradient_checkpointing=True,
        )
        trainer.fit(model, data, ckpt_path=checkpoint and str(checkpoint), weights_only=False)
        return losses.values, model

    whole, model = fit(1, None)
    rest, resumed = fit(2, saved)
    assert len(set(whole)) == 8
    assert rest == whole[5:]
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_a_crash_inside_an_accumulation_window_loses_no_batch(
    tmp_path: Path, tiny_llm_dir: Path, tiny_whisper_dir: Path
) -> None:
    data, saved = make_data(tmp_path / "data"), tmp_path / "crash.ckpt"

    class Seen(SpeechLLM):
        dies = False

        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            if self.dies and self.trainer.global_step == 3 and batch_idx % 2:
                self.trainer.save_checkpoint(saved)
                raise RuntimeError("dies")
            ids.append(batch.ids)
            return super().training_step(batch, batch_idx)

    def fit(checkpoint: Path | None, dies: bool = False) -> dict[str, torch.Tensor]:
        torch.manual_seed(1)
        trainer = make_trainer(
            tmp_path / "run", [], max_steps=5, max_epochs=-1, limit_val_batches=0, accumulate_grad_batches=2,
            limit_train_batches=4,
        )  # fmt: skip
        encoder = WhisperEncoder(str(tiny_whisper_dir))
        model = Seen(str(tiny_llm_dir), encoder, ConcatMLP(stack=5, hidden=16), LoRA(r=2))
        model.dies = dies
        trainer.fit(model, data, ckpt_path=checkpoint and str(checkpoint), weights_only=False)
        return {name: tensor.clone() for name, tensor in model.state_dict().items()}

    ids: list[list[str]] = []
    weights, whole = fit(None), list(ids)
    with pytest.raises(RuntimeError, match="dies"):
        fit(None, dies=True)
    ids.clear()
    resumed = fit(saved)
    assert ids == whole[6:]
    assert all(torch.equal(resumed[name], tensor) for name, tensor in weights.items())
