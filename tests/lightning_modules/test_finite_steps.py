"""A loss or a gradient that is not finite never reaches a weight, a moment or a file."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from tests.support.processes import child_environment
from tests.support.speech_run import make_data, make_trainer, write_manifest
from textkeep.callbacks import RunCheckpoint
from textkeep.foundation.errors import RunError
from textkeep.lightning_modules import ConcatMLP, FullFineTuning, LoRA, OPLoRA, SpeechLLM, WhisperEncoder
from textkeep.lightning_modules.finite_steps import GIVE_UP, FiniteSteps
from textkeep.lightning_modules.saving.finite_weights import not_finite
from textkeep.lightning_modules.tuning import Tuning

pytestmark = pytest.mark.filterwarnings("ignore")


class Spoiled(SpeechLLM):
    """Its loss, or the gradient of one weight, is not finite at given batches (counted from 0)."""

    at: tuple[int, ...] = ()
    value = math.nan
    gradient = False
    batches = -1

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = super().training_step(batch, batch_idx)
        self.batches += 1
        if self.batches not in self.at:
            return loss
        if self.gradient:
            handle = self.llm.model.norm.weight.register_hook(lambda grad: (handle.remove(), grad / 0)[1])
            return loss
        return loss * self.value

    def on_train_start(self) -> None:
        super().on_train_start()
        self.batches = self.trainer.global_step * self.trainer.accumulate_grad_batches - 1


class States(Callback):
    """Keeps weights, moments and rate after each step, and dies after one."""

    def __init__(self, dies: int = -1) -> None:
        self.seen: dict[int, dict[str, torch.Tensor]] = {}
        self.rates: list[float] = []
        self.dies = dies

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        moments = trainer.optimizers[0].state_dict()["state"]
        state = {f"{i}.{k}": v for i, s in moments.items() for k, v in s.items() if isinstance(v, torch.Tensor)}
        whole = {**{n: p for n, p in pl_module.named_parameters() if p.requires_grad}, **state}
        self.seen[trainer.global_step] = {name: tensor.detach().clone() for name, tensor in whole.items()}
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])
        if trainer.global_step == self.dies:
            raise KeyboardInterrupt


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def fit(tmp_path: Path, tiny_llm_dir: Path, tiny_whisper_dir: Path) -> Any:
    data = make_data(tmp_path / "data")

    def run(
        at: tuple[int, ...] = (), *callbacks: Callback, tuning: Tuning | None = None, resume: Path | None = None,
        on_nonfinite: Any = "stop", gradient: bool = False, name: str = "run", **options: Any,
    ) -> Spoiled:  # fmt: skip
        settings = {"max_steps": 6, "max_epochs": -1, "limit_val_batches": 0, "enable_checkpointing": None} | options
        trainer = make_trainer(tmp_path / name, list(callbacks), **settings)
        torch.manual_seed(0)
        encoder, adaptor = WhisperEncoder(str(tiny_whisper_dir)), ConcatMLP(stack=5, hidden=16)
        model = Spoiled(
            str(tiny_llm_dir), encoder, adaptor, tuning or LoRA(r=2),
            optimizer=lambda groups: torch.optim.AdamW(groups, lr=0.02), on_nonfinite=on_nonfinite,
        )  # fmt: skip
        model.at, model.gradient = at, gradient
        trainer.fit(model, data, ckpt_path=resume, weights_only=False)
        return model

    return run


def test_a_loss_that_is_not_finite_stops_the_run_before_the_step(fit: Any, tmp_path: Path) -> None:
    states = States()
    told = r"^optimizer step 4: the gradient of \S+ is not finite in \d+ of \d+ places \(examples of the step: train-"
    with pytest.raises(RunError, match=told):
        fit((3,), states, RunCheckpoint(every_n_train_steps=2))
    assert sorted(states.seen) == [1, 2, 3]
    files = sorted((tmp_path / "run" / "checkpoints").iterdir())
    assert [file.name for file in files] == ["last.ckpt", "step=000002.ckpt"]
    assert not_finite(torch.load(files[1], weights_only=False)) is None


def test_the_gradient_is_named_where_the_loss_is_finite(fit: Any) -> None:
    with pytest.raises(RunError, match=r"step 3: the gradient of llm\.model\.norm\.weight is not finite in 32 of 32"):
        fit((2,), gradient=True, tuning=FullFineTuning())


def test_the_loss_is_named_with_its_examples_among_those_of_the_window(fit: Any, monkeypatch: Any) -> None:
    seen: list[list[str]] = []

    def note(self: FiniteSteps, ids: list[str], loss: torch.Tensor) -> None:
        seen.append(ids)
        noted(self, ids, loss * (math.inf if len(seen) == 5 else 1))

    noted = FiniteSteps.note
    monkeypatch.setattr(FiniteSteps, "note", note)
    with pytest.raises(RunError) as caught:
        fit(accumulate_grad_batches=3)
    window = seen[3:6]
    assert str(caught.value).startswith(
        f"optimizer step 2: the loss of {', '.join(window[1])} is inf "
        f"(examples of the step: {', '.join(name for ids in window for name in ids)}); it is not taken"
    )


@pytest.mark.parametrize("window", [1, 2])
@pytest.mark.parametrize("kind", ["lora", "oplora"])
def test_a_skipped_step_changes_nothing_but_the_schedule(fit: Any, window: int, kind: str) -> None:
    """OPLoRA projects its weights whenever the optimizer has taken a step."""
    make = {"lora": lambda: LoRA(r=2), "oplora": lambda: OPLoRA(r=2, k=2)}[kind]
    states = States()
    at = (2 * window, 3 * window + window - 1)
    options = {"accumulate_grad_batches": window, "limit_train_batches": 4}
    model = fit(at, states, tuning=make(), on_nonfinite="skip_step", **options)
    assert same(states.seen[2], states.seen[3])
    assert same(states.seen[3], states.seen[4])
    assert not same(states.seen[4], states.seen[5])
    assert model.trainer.callback_metrics["train/skipped_steps"] == 2
    assert len(set(states.rates)) >= 6
    assert all(torch.isfinite(tensor).all() for tensor in states.seen[6].values())


def test_weights_in_doubt_take_no_checkpoint_away(fit: Any, tmp_path: Path) -> None:
    fit((2, 3, 4), RunCheckpoint(every_n_train_steps=1, save_top_k=-1), on_nonfinite="skip_step")
    saved = sorted(file.stem for file in (tmp_path / "run/checkpoints").glob("step=*.ckpt"))
    assert saved == [f"step={step:06d}" for step in (1, 2, 3, 6)]  # 3 to 5 were skipped, one may happen


def test_a_run_that_skips_is_continued_exactly(fit: Any, tmp_path: Path) -> None:
    whole = States()
    model = fit((1, 4), whole, on_nonfinite="skip_step")
    with pytest.raises(SystemExit):
        fit((1, 4), States(dies=2), RunCheckpoint(), on_nonfinite="skip_step", name="cut")
    rest = States()
    resumed = fit((1, 4), rest, on_nonfinite="skip_step", resume=tmp_path / "cut/checkpoints/last.ckpt")
    assert all(same(state, whole.seen[step]) for step, state in rest.seen.items())
    assert sorted(rest.seen) == [3, 4, 5, 6]
    skipped = "train/skipped_steps"
    assert resumed.trainer.callback_metrics[skipped] == model.trainer.callback_metrics[skipped] == 2


def test_it_gives_up(fit: Any) -> None:
    bad = tuple(range(2, 100))
    states = States()
    with pytest.raises(RunError, match=rf"step {2 + GIVE_UP}: .*, as in the {GIVE_UP - 1} steps before it; it is not"):
        fit(bad, states, on_nonfinite="skip_step", max_steps=40)
    assert max(states.seen) == 1 + GIVE_UP
    assert same(states.seen[2], states.seen[1 + GIVE_UP])


@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_gradients_are_clipped_as_lightning_clips(fit: Any, algorithm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"gradient_clip_val": 0.01, "gradient_clip_algorithm": algorithm}
    own, theirs, without = States(), States(), States()
    fit((), own, **options)
    fit((), without)
    monkeypatch.setattr(SpeechLLM, "configure_gradient_clipping", LightningModule.configure_gradient_clipping)
    fit((), theirs, **options)
    assert same(own.seen[6], theirs.seen[6])
    assert not same(own.seen[6], without.seen[6])


@pytest.mark.parametrize("allowed", [0.5, 1.0, 1.0 + 3e-7, 1.5])
def test_a_norm_that_is_allowed_is_clipped_as_torch_clips_it(allowed: float) -> None:
    """Where torch multiplies by 1, nothing is multiplied; around the norm itself it multiplies by a little less."""
    torch.manual_seed(0)
    own = [torch.nn.Parameter(torch.randn(7)) for _ in range(3)]
    for parameter in own:
        parameter.grad = torch.randn(7)
    theirs = [parameter.detach().clone() for parameter in own]
    for parameter, other in zip(own, theirs, strict=True):
        other.grad = parameter.grad.clone()  # type: ignore[union-attr]
    largest = allowed * float(torch.nn.utils.get_total_norm([parameter.grad for parameter in own]))  # type: ignore[misc]
    plugin = SimpleNamespace(main_params=lambda optimizer: own)
    trainer = SimpleNamespace(precision_plugin=plugin, strategy=SimpleNamespace(reduce_boolean_decision=bool))
    FiniteSteps("stop").clip(SimpleNamespace(trainer=trainer), None, largest, None)  # type: ignore[arg-type]
    torch.nn.utils.clip_grad_norm_(theirs, largest)
    for parameter, other in zip(own, theirs, strict=True):
        assert torch.equal(parameter.grad, other.grad)  # type: ignore[arg-type]


def test_weights_that_are_not_finite_are_neither_written_nor_read(fit: Any, tmp_path: Path) -> None:
    class Spoils(Callback):
        def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *args: Any) -> None:
            if trainer.global_step == 4:
                next(pl_module.adaptor.parameters()).data.view(-1)[0] = math.inf

    told = r"^no checkpoint of step 4 is written: adaptor\.\S+ is not finite in 1 of \d+ places; the last one is kept$"
    with pytest.raises(RunError, match=told):
        fit((), Spoils(), RunCheckpoint(every_n_train_steps=2))
    (file,) = (tmp_path / "run/checkpoints").glob("step*")
    assert file.name == "step=000002.ckpt"
    checkpoint = torch.load(file, weights_only=False)
    checkpoint["state_dict"][next(n for n in checkpoint["state_dict"] if n.startswith("adaptor"))].fill_(math.nan)
    torch.save(checkpoint, file)
    with pytest.raises(ValueError, match=r"the checkpoint of step 2 is of no use: adaptor\.\S+ is not finite"):
        fit((), resume=file)


RANKS = """
import os, sys, math, warnings
from pathlib import Path
import torch
from lightning.pytorch import Trainer, seed_everything
from textkeep.datamodules import SpeechTextData
from textkeep.lightning_modules import ConcatMLP, LoRA, SpeechLLM, WhisperEncoder

warnings.simplefilter("ignore")
manifest, llm, whisper, folder, choice = sys.argv[1:]

class Spoiled(SpeechLLM):
    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        return loss * (math.nan if batch_idx == 2 and self.global_rank == 1 else 1)

seed_everything(0)
model = Spoiled(llm, WhisperEncoder(whisper), ConcatMLP(5, 16), LoRA(r=2), on_nonfinite=choice)
data = SpeechTextData(train=manifest, train_modalities="both", tokens_per_batch=80)
trainer = Trainer(default_root_dir=folder, accelerator="cpu", devices=2, strategy="ddp", max_steps=4, logger=False,
                  enable_checkpointing=False, enable_progress_bar=False, use_distributed_sampler=False)
try:
    trainer.fit(model, data)
except Exception as error:
    Path(folder, f"told{trainer.global_rank}").write_text(f"{type(error).__name__} {trainer.global_step} {error}")
else:
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    torch.save((trained, model._finite.skipped), Path(folder, f"end{trainer.global_rank}"))
"""


@pytest.mark.slow
@pytest.mark.parametrize("choice", ["stop", "skip_step"])
def test_the_ranks_decide_together(choice: str, tmp_path: Path, tiny_llm_dir: Path, tiny_whisper_dir: Path) -> None:
    manifest = write_manifest(tmp_path, "train", 12)
    (tmp_path / "script.py").write_text(RANKS)
    words = [
        sys.executable,
        "script.py",
        str(manifest),
        str(tiny_llm_dir),
        str(tiny_whisper_dir),
        str(tmp_path),
        choice,
    ]
    subprocess.run(words, cwd=tmp_path, env=child_environment(), timeout=200, check=True, capture_output=True)
    if choice == "skip_step":
        (one, skipped), (other, as_often) = (torch.load(tmp_path / f"end{r}", weights_only=False) for r in range(2))
        assert skipped == as_often == 1
        assert same(one, other)
        return
    first, second = (json.dumps((tmp_path / f"told{rank}").read_text()) for rank in range(2))
    assert first == second
    assert first.startswith('"RunError 2 optimizer step 3: the gradient of')
