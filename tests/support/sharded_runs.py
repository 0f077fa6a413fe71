"""Small runs, a cell each, in one process or as one of some ranks under FSDP2: they must come to the same.

python -m tests.support.sharded_runs FOLDER FILES.json CELL... is one rank, started with a rank's environment.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch

from textkeep.callbacks import (
    Divergence,
    EvaluationSuite,
    ImportanceTracker,
    PlainTextLoss,
    Retention,
    RunCheckpoint,
    StepCompletion,
    StopAtBudget,
    TextBudget,
    TuningImportance,
)
from textkeep.datamodules import Probe, Replay, SpeechTextData
from textkeep.datamodules.batches.token_budget_sampler import TokenBudgetSampler
from textkeep.foundation.errors import RunError
from textkeep.foundation.sharding import own_part
from textkeep.lightning_modules import (
    EWC,
    FSDP2,
    L2SP,
    AdaptorOnly,
    AnswerCrossEntropy,
    ConcatMLP,
    CTCAlignment,
    FullFineTuning,
    ImportanceMask,
    ImportanceRates,
    LinearDepthRates,
    LoRA,
    PartialFineTuning,
    PlainTextDistillation,
    PlainTextReplay,
    SpeechLLM,
    SpeechPositions,
    SpeechTurns,
    TextTwinDistillation,
    WhisperEncoder,
)
from textkeep.lightning_modules.sharding import sharded_saving


@dataclass(frozen=True)
class Files:
    """What the runs read."""

    llm: str
    whisper: str
    manifest: str
    text: str
    fisher: str
    large: str
    misfit: str


@dataclass(frozen=True)
class Cell:
    """What a run is made of; each part is made anew for each run."""

    model: Callable[[Files], dict[str, Any]]
    callbacks: Callable[[Files], list[L.Callback]] = lambda files: []
    trainer: dict[str, Any] = field(default_factory=dict)
    data: Callable[[Files], dict[str, Any]] = lambda files: {}
    accumulate: int = 1
    tested: bool = False
    llm: Callable[[Files], str] = lambda files: files.llm
    strategy: dict[str, Any] = field(default_factory=dict)


class Poison(L.Callback):
    """Makes some of a gradient infinite, on one rank: all of them skip the third step."""

    done = False

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: Any, optimizer: torch.optim.Optimizer) -> None:
        if trainer.global_step == 2 and trainer.is_global_zero and not self.done:
            self.done = True
            own_part(next(pl_module.adaptor.parameters()).grad)[0] = float("inf")


SHARDED: dict[str, Any] = {"checkpoints": "sharded"}


class WritesMeanwhile(L.Callback):
    """Lets no checkpoint of the first epoch be written before a batch of the second was trained on."""

    def setup(self, trainer: L.Trainer, pl_module: Any, stage: str) -> None:
        self.further = threading.Event()
        own = sharded_saving._Writer.write_data

        def write_data(*args: Any) -> Any:
            assert self.further.wait(60), "training waits for the checkpoint"
            return own(*args)

        sharded_saving._Writer.write_data = write_data  # type: ignore[method-assign]

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        if trainer.current_epoch == 1:
            self.further.set()


class DiesWriting(L.Callback):
    """Kills rank zero when the parts of the second checkpoint are written, and it has not its name."""

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        if trainer.current_epoch == 1:
            trainer.strategy.finish_saving()
            sharded_saving.write_listing = lambda *args: os.kill(os.getpid(), signal.SIGKILL)


def everything(files: Files) -> list[L.Callback]:
    return [
        ImportanceTracker(estimators=["taylor", "fisher", "signed_taylor"], top_fraction=0.1),
        Retention(),
        Divergence(),
        EvaluationSuite({"passages": PlainTextLoss(files.text, batch_size=3)}),
    ]


CELLS: dict[str, Cell] = {
    "full": Cell(
        lambda files: {"tuning": FullFineTuning(train_encoder=True), "gradient_checkpointing": True},
        everything,
        {"gradient_clip_val": 0.1},
    ),
    "lora": Cell(
        lambda files: {"tuning": LoRA(r=4, rates=LinearDepthRates()), "on_nonfinite": "skip_step"},
        lambda files: [*everything(files), Poison()],
        {"gradient_clip_val": 0.05},
        tested=True,
    ),
    "dora": Cell(lambda files: {"tuning": LoRA(r=4, use_dora=True), "gradient_checkpointing": True}),
    "gated turns": Cell(
        lambda files: {
            "tuning": LoRA(r=4, gate=SpeechTurns()),
            "gradient_checkpointing": True,
            "objectives": [AnswerCrossEntropy(), TextTwinDistillation()],
        },
        everything,
    ),
    "gated positions": Cell(lambda files: {"tuning": LoRA(r=4, gate=SpeechPositions())}, strategy=SHARDED),
    "drawn back": Cell(
        lambda files: {
            "tuning": FullFineTuning(
                protect=ImportanceMask(probe="text", fraction=0.2), rates=ImportanceRates(probe="text", every_n_steps=3)
            ),
            "objectives": [AnswerCrossEntropy(), L2SP(0.5), EWC(files.fisher, 1000.0)],
        },
        lambda files: [TuningImportance()],
        {"gradient_clip_val": 0.1},
    ),
    "distilled": Cell(
        lambda files: {
            "tuning": FullFineTuning(),
            "objectives": [
                AnswerCrossEntropy(),
                TextTwinDistillation(),
                PlainTextReplay(files.text, tokens=16),
                PlainTextDistillation(files.text, tokens=16),
            ],
        },
    ),
    "partial": Cell(
        lambda files: {"tuning": PartialFineTuning(layers="1-")},
        lambda files: [TextBudget(5.0, "text", every_n_steps=2, actions=[StopAtBudget()])],
        data=lambda files: {"replay": Replay(files.manifest, 0.2)},
    ),
    "adaptor": Cell(
        lambda files: {"tuning": AdaptorOnly(), "objectives": [AnswerCrossEntropy(), CTCAlignment(0.1)]},
        lambda files: [WritesMeanwhile()],
        strategy={**SHARDED, "reshard_after_forward": False},
    ),
    "replicas": Cell(
        lambda files: {"tuning": FullFineTuning(), "objectives": [AnswerCrossEntropy(), L2SP(0.5)]},
        trainer={"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"},
        accumulate=2,
        strategy={**SHARDED, "replicas": 2},
    ),
    "bf16-mixed": Cell(
        lambda files: {"tuning": FullFineTuning()}, everything, {"precision": "bf16-mixed", "gradient_clip_val": 0.1}
    ),
    "bf16-true": Cell(lambda files: {"tuning": FullFineTuning()}, trainer={"precision": "bf16-true"}),
    "large": Cell(
        lambda files: {"tuning": AdaptorOnly()},
        trainer={"max_steps": 1, "limit_val_batches": 0},
        llm=lambda files: files.large,
    ),
}

KILLED = Cell(lambda files: {"tuning": FullFineTuning()}, lambda files: [DiesWriting()], strategy=SHARDED)
MISFIT = Cell(lambda files: {"adaptor_weights": files.misfit})
"""Refused by rank zero alone, which reads the file."""


class Losses(L.Callback):
    """The loss of each batch of this rank, and the memory that it took to get ready for the first."""

    def __init__(self) -> None:
        self.found: list[float] = []
        self.before = memory()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.growth = memory("VmHWM") - self.before

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        self.found.append(float(trainer.callback_metrics["train/loss"]))


def answers(predicted: Any) -> Iterator[tuple[str, str]]:
    """Item and modality, and what was answered, of batches in whatever lists they come."""
    if isinstance(predicted, dict):
        yield f"{predicted['id']} {predicted['modality']}", predicted["prediction"]
    else:
        for part in predicted:
            yield from answers(part)


def memory(kind: str = "VmRSS") -> int:
    """Bytes of this process in memory: now (``VmRSS``; the peak is forgotten), or at most since then (``VmHWM``)."""
    if kind == "VmRSS":
        Path("/proc/self/clear_refs").write_text("5")
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(kind)]
    return 1024 * int(line.split()[1])


@contextmanager
def batches_of_ranks(count: int) -> Iterator[None]:
    """Lets one process train on the batches of several ranks, one after the other: as accumulation steps."""
    own = TokenBudgetSampler.batches

    def together(self: TokenBudgetSampler, epoch: int) -> list[list[int]]:
        if self.world_size > 1 or not self.shuffle:
            return own(self, epoch)
        made = partial(TokenBudgetSampler, self.lengths, self.tokens_per_batch, self.max_examples, self._kinds)
        ranks = [made(self.seed, self.shuffle, rank, count, self.shares) for rank in range(count)]
        return [batch for step in zip(*(own(rank, epoch) for rank in ranks), strict=True) for batch in step]

    TokenBudgetSampler.batches = together  # type: ignore[method-assign]
    try:
        yield
    finally:
        TokenBudgetSampler.batches = own  # type: ignore[method-assign]


def train(
    name: str, files: Files, folder: Path, ranks: int, checkpoint: Path | None = None, instead_of: int = 2
) -> None:
    """Trains two epochs, and leaves checkpoints and what was logged in a folder.

    Args:
        name: Of the cell.
        files: What it reads.
        folder: The run directory.
        ranks: Processes that train.
        checkpoint: To go on from.
        instead_of: Ranks whose batches one process trains on.
    """
    cell = {**CELLS, "misfit": MISFIT, "killed": KILLED}[name]
    L.seed_everything(0, verbose=False)
    model = SpeechLLM(
        cell.llm(files),
        WhisperEncoder(files.whisper),
        ConcatMLP(5, 16),
        optimizer=lambda groups: torch.optim.AdamW(groups, lr=0.003, eps=1e-5, weight_decay=0.1),
        max_new_tokens=4,
        **cell.model(files),
    )
    probes = {"speech": Probe(files.manifest, "speech", 5, batch_size=2), "text": Probe(files.manifest, "text", 6)}
    options = {"train_modalities": "both", "max_examples_per_batch": 3, "speech_instruction": "", "probes": probes}
    data = SpeechTextData(*4 * [files.manifest], **{**options, **cell.data(files)})
    losses = Losses()
    trainer = L.Trainer(
        accelerator="cpu",
        devices=ranks,
        strategy=FSDP2(**cell.strategy) if ranks > 1 else "auto",
        max_epochs=2,
        accumulate_grad_batches=cell.accumulate * (1 if ranks > 1 else instead_of),
        callbacks=[StepCompletion(), *cell.callbacks(files), losses, RunCheckpoint(save_top_k=-1)],
        default_root_dir=folder,
        use_distributed_sampler=False,
        logger=False,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        **cell.trainer,
    )
    trainer.fit(model, data, ckpt_path=checkpoint, weights_only=False)
    values = {key: float(value) for key, value in trainer.callback_metrics.items() if not key.startswith("train/")}
    found = {"steps": trainer.global_step, "losses": losses.found, "values": values, "growth": losses.growth}
    if cell.tested:
        found["tested"] = trainer.test(model, data, verbose=False)
        found["answers"] = dict(answers(trainer.predict(model, data)))
    (folder / f"rank{trainer.global_rank}.json").write_text(json.dumps(found))


def main(folder: Path, files: Files, words: list[str]) -> None:
    """Trains cells as one of the ranks; ``CELL<CHECKPOINT`` goes on from a file, into a folder of its own."""
    warnings.simplefilter("ignore")
    ranks, rank = int(os.environ["WORLD_SIZE"]), os.environ["LOCAL_RANK"]  # Lightning removes them after a fit
    for word in words:
        name, _, checkpoint = word.partition("<")
        own = folder / (f"{name} on" if checkpoint else name)
        own.mkdir(parents=True, exist_ok=True)
        try:
            train(name, files, own, ranks, Path(checkpoint) if checkpoint else None)
        except (RunError, ValueError) as error:
            (own / f"refusal{rank}.txt").write_text(str(error))
            if name in CELLS:
                raise
        except BaseException:
            traceback.print_exc()
            print(f"in cell {word}", flush=True)
            raise


if __name__ == "__main__":
    main(Path(sys.argv[1]), Files(**json.loads(Path(sys.argv[2]).read_text())), sys.argv[3:])
