"""One measurement of importance inside a run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer

from ...foundation.sharding import gathered
from ...importance import Snapshot, probe, undisturbed
from ..stopping.give_way import give_way
from .snapshot_memory import SnapshotMemory

IGNORED = -100  # of labels: not supervised
AUTOCAST = {"bf16-mixed": torch.bfloat16}  # float16 would need a loss scale: measured in the weights' own precision


def measure_probe(
    trainer: Trainer,
    pl_module: LightningModule,
    name: str,
    estimators: Sequence[str],
    memory: SnapshotMemory | None = None,
    **options: Any,
) -> Snapshot:
    """Measures the bare LLM on a probe of the data module, whose examples are shared out among the ranks.

    Args:
        trainer: Gives device placement, precision and the data module.
        pl_module: Offers ``llm`` and ``embed``; ends as it was, random states included.
        name: Of the probe.
        estimators: What to measure.
        memory: Where it may have been kept.
        **options: Fields of :class:`textkeep.importance.ProbeOptions`.

    Returns:
        The snapshot, the same on all ranks.

    Raises:
        ValueError: If no single matrix per layer acts on the probe's examples.
    """
    llm: Any = pl_module.llm
    acting = acting_weights(trainer, pl_module, name)
    if acting is None:
        raise ValueError(f"importance: probe {name!r} cannot be measured: its positions meet different weights")

    def measure(batches: Iterable[dict[str, Any]]) -> Snapshot:
        return probe(
            llm,
            batches,
            estimators,
            step=trainer.global_step,
            name=name,
            autocast=AUTOCAST.get(str(trainer.precision)),
            progress=lambda *_: give_way(trainer),
            **options,
        )

    with gathered(pl_module), undisturbed(pl_module), acting:
        batches = _batches(trainer, pl_module, name)
        if memory is None:
            return measure(batches)
        kept = list(batches)
        return memory.recall(name, kept, estimators, options, lambda: measure(kept))


def acting_weights(trainer: Trainer, pl_module: LightningModule, name: str) -> AbstractContextManager[None] | None:
    """Puts in place the weights that a probe's examples meet; ``None`` if that is not a single matrix per layer.

    Adapters behind a gate are off unless the LLM reads a batch: text probes meet the untouched LLM.
    """
    tuning: Any = getattr(pl_module, "tuning", None)
    if tuning is None:
        return nullcontext()
    return tuning.measuring(trainer.datamodule.probes[name].modality)  # type: ignore[attr-defined]


def is_plain(trainer: Trainer, name: str) -> bool:
    """Returns whether a probe is plain text: every token but the first is predicted, and there is nothing else."""
    return all(
        bool(((batch.labels != IGNORED).sum(dim=1) == batch.attention_mask.sum(dim=1) - 1).all())
        for batch in trainer.datamodule.probe_batches(name)  # type: ignore[attr-defined]
    )


def _batches(trainer: Trainer, pl_module: LightningModule, name: str) -> Iterator[dict[str, Any]]:
    """Yields this rank's part of a probe, embedded by the module as it is now, and way before each batch."""
    batches = trainer.datamodule.probe_batches(name)  # type: ignore[attr-defined]
    for place in range(0, len(batches), trainer.world_size):
        give_way(trainer)
        if place + trainer.global_rank >= len(batches):
            return
        batch = trainer.strategy.batch_to_device(batches[place + trainer.global_rank])
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            inputs = pl_module.embed(batch)  # type: ignore[operator]
        # The ids do not go into the model; they are part of the probe's fingerprint.
        yield {**inputs, "input_ids": batch.input_ids, "ids": batch.ids}
