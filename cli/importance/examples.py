"""On what it is measured: examples to score, and others on which the loss is taken."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import CommandError
from ..numbers import positive
from .subject import Subject

if TYPE_CHECKING:
    from ...datamodules.example import Modality


def add_data_options(
    parser: argparse.ArgumentParser, examples: int, modalities: Sequence[str] = ("text", "speech")
) -> None:
    """Options about the examples."""
    parser.add_argument("--data", required=True, help="a JSONL manifest, or spoken-facts/SPLIT")
    parser.add_argument("--modality", choices=modalities, default="text", help="default: text")
    parser.add_argument("--examples", type=positive, default=examples, help=f"how many (default: {examples})")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of examples (default: 0)")
    parser.add_argument("--batch-size", type=positive, default=8, help="examples at once (default: 8)")


def add_evaluation_options(parser: argparse.ArgumentParser, many: bool = False) -> None:
    """Options about the examples on which the loss is measured: others than those that are scored."""
    parser.add_argument(
        "--evaluate",
        metavar="DATA",
        nargs="+" if many else None,
        help="data for the loss (default: the next examples of --data)",
    )
    parser.add_argument("--evaluate-examples", type=positive, help="how many (default: as many as are scored)")


def read_batches(
    subject: Subject,
    arguments: argparse.Namespace,
    source: str | None = None,
    modality: str | None = None,
    skip: int = 0,
    count: int | None = None,
) -> list[Mapping[str, Any]]:
    """Batches for ``probe``: the examples with the smallest hashes of (seed, id), the same in every command.

    Args:
        subject: Whose tokenizer and encoder are used.
        arguments: With the options of :func:`add_data_options`.
        source: Instead of ``--data``.
        modality: Instead of ``--modality``.
        skip: Leaves out so many examples first, to get others than those of another call.
        count: Instead of ``--examples``.

    Raises:
        CommandError: If no example is left, or the model cannot listen.
    """
    from ...datamodules import Probe, SpeechTextData
    from ...datamodules.bad_examples import BadExamples
    from ...datamodules.sources import read_sources

    source, modality, count = source or arguments.data, modality or arguments.modality, count or arguments.examples
    if modality == "speech" and subject.listener is None:
        raise CommandError(f"importance: {subject.name} cannot listen; allowed: --modality text, or a TextKeep run")
    if modality == "speech" and _gated(subject):
        raise CommandError(
            f"importance: the adapters of {subject.name} act behind a speech gate, which is shut here; allowed: "
            "--modality text (the LLM as written questions meet it), or ImportanceTracker during the run"
        )
    data = SpeechTextData(**subject.prompts)
    data.connect(subject.front_end)
    choice = Probe(source, modality, skip + count, arguments.seed, arguments.batch_size)
    chosen = choice.choose(read_sources(source, BadExamples("raise")))[skip:]
    if not chosen:
        raise CommandError(
            f"importance: {source} has only {skip} examples with {modality}; give --evaluate or fewer --examples"
        )
    made = data.factory([]).batches(chosen, modality, arguments.batch_size)
    return [_as_mapping(subject, batch) for batch in made]


def evaluation_batches(
    subject: Subject, arguments: argparse.Namespace, source: str | None, modality: str | None = None
) -> list[Mapping[str, Any]]:
    """Batches on which the loss is measured; those scored are left out if they come from the same data.

    Args:
        subject: Whose tokenizer and encoder are used.
        arguments: With the options of :func:`add_evaluation_options`.
        source: One of ``--evaluate``; ``None`` is ``--data``.
        modality: Instead of ``--modality``.

    Raises:
        CommandError: If no example is left.
    """
    skip = arguments.examples if source in (None, arguments.data) else 0
    count = arguments.evaluate_examples or arguments.examples
    return read_batches(subject, arguments, source, modality, skip, count)


def modalities(subject: Subject, source: str) -> list[Modality]:
    """In which ways the model can be asked the questions of ``source``: in writing, and by voice where both can."""
    from ...datamodules.bad_examples import BadExamples
    from ...datamodules.sources import read_sources

    examples = read_sources(source, BadExamples("raise"))
    ways: list[Modality] = ["text", "speech"] if subject.listener is not None and not _gated(subject) else ["text"]
    return [way for way in ways if any(example.has(way) for example in examples)]


def _gated(subject: Subject) -> bool:
    """Whether adapters act on speech only: they are off in the bare LLM that these commands measure."""
    return getattr(subject.listener.tuning, "gate", None) is not None


def _as_mapping(subject: Subject, batch: Any) -> Mapping[str, Any]:
    """Text goes in as ids, speech as the listener's embeddings."""
    import torch

    batch = batch.to(next(subject.llm.parameters()).device)
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "labels": batch.labels}
    if subject.listener is not None and batch.features.shape[0]:
        with torch.no_grad():
            inputs |= subject.listener.embed(batch)
    return {**inputs, "ids": batch.ids}
