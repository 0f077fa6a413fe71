"""What is about to train, in one line."""

from __future__ import annotations

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelSummary
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.model_summary.model_summary import get_human_readable_count
from torch import nn
from typing_extensions import override


class RunSummary(ModelSummary):
    """Prints once how many weights train, and in which parts; replaces Lightning's table."""

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        rank_zero_info(summary_line(pl_module))


def summary_line(module: nn.Module) -> str:
    """Writes ``142 M of 150 M weights train: adaptor 7.9 M, llm 134 M``; a weight that parts share counts in each."""

    def count(part: nn.Module, training: bool = False) -> int:
        return sum(p.numel() for p in part.parameters() if p.requires_grad or not training)

    def written(number: int) -> str:
        return get_human_readable_count(number).strip()

    parts = [f"{name} {written(count(part, True))}" for name, part in module.named_children() if count(part, True)]
    total = f"{written(count(module, True))} of {written(count(module))} weights train"
    return f"{total}: {', '.join(parts)}" if parts else total
