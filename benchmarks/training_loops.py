"""Three loops that train the same model on the same batches: bare torch, Hugging Face's Trainer, TextKeep.

All take their loss from ``SpeechLLM.answer_losses`` and their optimizer step from the same class, and clip alike: what
differs is the loop around them. Each calls ``stepped`` when its optimizer has taken a step; the time between two calls
is one training step, including whatever a loop does before and after it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from lightning.pytorch import LightningDataModule, Trainer
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from textkeep.callbacks import LogProgress, RunCSVLogger, SeededBatches, SkippedExamples, StepCompletion
from textkeep.datamodules import Batch
from textkeep.lightning_modules import SpeechLLM

CLIP = 1.0
LOG_EVERY = 10
Stepped = Callable[[], None]


class Loop(Protocol):
    """Trains on one batch after another, one step each, and calls ``stepped`` after each step."""

    def __call__(self, model: SpeechLLM, batches: Sequence[Batch], stepped: Stepped) -> None:
        """Trains to the last batch."""


class TokenMean(nn.Module):
    """A model that returns the loss of a batch, as a bare loop and Hugging Face's Trainer expect it.

    Args:
        model: The speech LLM.
    """

    def __init__(self, model: SpeechLLM) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Returns the mean over the batch's answer tokens, nats."""
        losses, tokens = self.model.answer_losses(batch)
        return {"loss": losses.sum() / tokens.sum()}


def optimizer_of(model: SpeechLLM, stepped: Stepped) -> tuple[torch.optim.Optimizer, LambdaLR]:
    """Builds the model's own optimizer, over the groups of its tuning, and a constant schedule."""
    groups = model.tuning.parameter_groups(model.llm, model.encoder, model.adaptor)
    optimizer = model.optimizer_factory([{"params": group.parameters} for group in groups])
    optimizer.register_step_post_hook(lambda *_: stepped())
    return optimizer, LambdaLR(optimizer, lambda step: 1.0)


def bare_loop(model: SpeechLLM, batches: Sequence[Batch], stepped: Stepped) -> None:
    """Trains with a hand-written loop."""
    optimizer, schedule = optimizer_of(model, stepped)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    loss_of = TokenMean(model).train()
    for step, batch in enumerate(batches, 1):
        optimizer.zero_grad()
        loss = loss_of(batch)["loss"]
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, CLIP)
        optimizer.step()
        schedule.step()
        if step % LOG_EVERY == 0:
            loss.item()


def hugging_face_loop(model: SpeechLLM, batches: Sequence[Batch], stepped: Stepped) -> None:
    """Trains with ``transformers.Trainer``, which saves and reports nothing here."""
    import transformers

    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            output_dir=folder,
            use_cpu=True,
            per_device_train_batch_size=1,
            max_steps=len(batches),
            max_grad_norm=CLIP,
            logging_steps=LOG_EVERY,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
            train_sampling_strategy="sequential",
            dataloader_pin_memory=False,
        )
        trainer = transformers.Trainer(
            model=TokenMean(model),
            args=arguments,
            train_dataset=[{"batch": batch} for batch in batches],  # type: ignore[arg-type]
            data_collator=lambda rows: rows[0],
            optimizers=optimizer_of(model, stepped),
        )
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()


class Given(LightningDataModule):
    """A data module of existing batches.

    Args:
        batches: One a step.
    """

    def __init__(self, batches: Sequence[Batch]) -> None:
        super().__init__()
        self.batches = batches

    def train_dataloader(self) -> DataLoader[Batch]:
        """Returns them, in order."""
        return DataLoader(self.batches, batch_size=None)  # type: ignore[arg-type]  # a list is a map-style data set


def textkeep_loop(model: SpeechLLM, batches: Sequence[Batch], stepped: Stepped) -> None:
    """Trains with Lightning's Trainer and what ``textkeep fit`` adds to it; W&B, checkpoints and validation are off."""
    made = model.configure_optimizers

    def configure_optimizers() -> Any:
        found: Any = made()
        found["optimizer"].register_step_post_hook(lambda *_: stepped())
        return found

    model.configure_optimizers = configure_optimizers  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            default_root_dir=folder,
            accelerator="cpu",
            devices=1,
            max_steps=len(batches),
            gradient_clip_val=CLIP,
            log_every_n_steps=LOG_EVERY,
            logger=RunCSVLogger(Path(folder)),
            callbacks=[LogProgress(), StepCompletion(), SeededBatches(), SkippedExamples()],
            enable_checkpointing=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
        trainer.progress_bar_callback.disable()  # type: ignore[union-attr]
        trainer.fit(model, Given(batches))


LOOPS: dict[str, Loop] = {
    "bare torch loop": bare_loop,
    "TextKeep": textkeep_loop,
    "Hugging Face Trainer": hugging_face_loop,
}
