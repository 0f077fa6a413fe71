"""Text probes for a model that TextKeep does not train, and a way to track it in a plain loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..callbacks.importance.importance_track import ImportanceTrack
from ..datamodules.sources.named import SourceName
from ..importance import DEFAULT_ESTIMATORS
from .batching import make_batches
from .examples import read_examples
from .text_llm import TextFrontEnd

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

_PARTS = ("input_ids", "attention_mask", "labels", "ids")


def text_probes(
    tokenizer: PreTrainedTokenizerBase,
    sources: Mapping[str, SourceName],
    *,
    examples: int = 16,
    tokens: int | None = None,
    batch_size: int = 8,
) -> dict[str, list[dict[str, Any]]]:
    """Builds batches of texts on which importance is measured.

    Args:
        tokenizer: Of the model; with a chat template if a source contains questions.
        sources: Name of the probe -> where its texts are: ``plain-text/probe``, ``spoken-facts/general``, a .txt file
            (passages between empty lines), a manifest, or a source.
        examples: Number per probe, chosen by hash like the probes of a run.
        tokens: Plain text is cut after this many; None leaves it whole.
        batch_size: Examples per batch.

    Returns:
        Name -> batches of ``input_ids``, ``attention_mask``, ``labels`` (B, T) and ``ids``, on the CPU.

    Raises:
        UserError: If a source contains no text.
    """
    front_end: Any = TextFrontEnd(tokenizer)
    found: dict[str, list[dict[str, Any]]] = {}
    for name, source in sources.items():
        chosen = read_examples(source, "text", examples)
        made = make_batches(front_end, {}, chosen, "text", batch_size, tokens=tokens)
        found[name] = [{key: getattr(batch, key) for key in _PARTS} for batch in made]
    return found


def track(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    sources: Mapping[str, SourceName],
    out: str | Path,
    *,
    estimators: Sequence[str] = DEFAULT_ESTIMATORS,
    examples: int = 16,
    tokens: int | None = None,
    step: int = 0,
    **options: Any,
) -> ImportanceTrack:
    """Tracks a model in your own training loop.

    Example:
        ::

            follow = track(model, tokenizer, {"plain_text": "plain-text/probe"}, "outputs/mine", tokens=64)
            follow.measure(0)
            for step, batch in enumerate(batches, 1):
                ...  # a training step
                if step % 100 == 0:
                    follow.measure(step)

    Args:
        model: A causal LM.
        tokenizer: Its tokenizer.
        sources: Name of the probe -> where its texts are; see :func:`text_probes`.
        out: Directory of the snapshots; ``textkeep report`` reads it.
        estimators: What to measure, from one pass.
        examples: Of each probe.
        tokens: Plain text is cut after this many.
        step: Optimizer steps so far; above 0, the records in the directory are continued.
        **options: Fields of :class:`textkeep.importance.ProbeOptions`, and ``replicates``.

    Raises:
        UserError: If a source holds no text, or the directory belongs to another run.
    """
    probes = text_probes(tokenizer, sources, examples=examples, tokens=tokens)
    followed = ImportanceTrack(model, probes, out, estimators, **options)
    followed.go_on(step)
    return followed
