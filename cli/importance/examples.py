"""The model and the examples of a command: options, and what they mean."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...foundation.errors import UserError
from ..errors import speaking_as
from ..options import positive

if TYPE_CHECKING:
    from ...datamodules.sources.example import Modality
    from ...inference import LoadedModel


def loaded(name: str, device: str | None, dtype: str) -> LoadedModel:
    """Loads the model of a command.

    Raises:
        UserError: If it cannot be loaded.
    """
    from ...inference import load

    with speaking_as("importance"):
        return load(name, device, dtype)


def add_data_options(
    parser: argparse.ArgumentParser, examples: int, modalities: Sequence[str] = ("text", "speech")
) -> None:
    """Adds the options about the examples."""
    parser.add_argument("--data", required=True, help="a JSONL manifest, or spoken-facts/SPLIT")
    parser.add_argument("--modality", choices=modalities, default="text", help="default: text")
    parser.add_argument("--examples", type=positive, default=examples, help=f"how many (default: {examples})")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of examples (default: 0)")
    parser.add_argument("--batch-size", type=positive, default=8, help="examples at once (default: 8)")


def add_evaluation_options(parser: argparse.ArgumentParser, many: bool = False) -> None:
    """Adds the options about the examples on which the loss is measured: others than those that are scored."""
    parser.add_argument(
        "--evaluate",
        metavar="DATA",
        nargs="+" if many else None,
        help="data for the loss (default: the next examples of --data)",
    )
    parser.add_argument("--evaluate-examples", type=positive, help="how many (default: as many as are scored)")


def read_batches(
    model: LoadedModel,
    arguments: argparse.Namespace,
    source: str | None = None,
    modality: Modality | None = None,
    skip: int = 0,
    count: int | None = None,
) -> list[Mapping[str, Any]]:
    """Gives batches for ``probe``: the examples with the smallest hashes of (seed, id), the same in every command.

    Args:
        model: Whose tokenizer and encoder are used.
        arguments: With the options of :func:`add_data_options`.
        source: Instead of ``--data``.
        modality: Instead of ``--modality``.
        skip: Leaves out so many examples first, to get others than those of another call.
        count: Instead of ``--examples``.

    Raises:
        UserError: If no example is left, or the model cannot listen.
    """
    from ...datamodules import Probe
    from ...datamodules.sources.bad_examples import BadExamples
    from ...datamodules.sources.named import read_sources

    source, count = source or arguments.data, count or arguments.examples
    way: Modality = modality or arguments.modality
    with speaking_as("importance"):
        if way == "speech":
            model.check_listens()
        choice = Probe(source, way, skip + count, arguments.seed, arguments.batch_size)
        chosen = choice.choose(read_sources(source, BadExamples("raise")))[skip:]
        if not chosen:
            raise UserError(f"{source} has only {skip} examples with {way}; give --evaluate or fewer --examples")
        return [model.inputs(batch) for batch in model.batches(chosen, way, arguments.batch_size)]


def evaluation_batches(
    model: LoadedModel, arguments: argparse.Namespace, source: str | None, modality: Modality | None = None
) -> list[Mapping[str, Any]]:
    """Gives batches on which the loss is measured; those scored are left out if they come from the same data.

    Args:
        model: Whose tokenizer and encoder are used.
        arguments: With the options of :func:`add_evaluation_options`.
        source: One of ``--evaluate``; ``None`` is ``--data``.
        modality: Instead of ``--modality``.

    Raises:
        UserError: If no example is left.
    """
    skip = arguments.examples if source in (None, arguments.data) else 0
    count = arguments.evaluate_examples or arguments.examples
    return read_batches(model, arguments, source, modality, skip, count)


def modalities(model: LoadedModel, source: str, measured: Modality) -> list[Modality]:
    """Tells in which ways a model can be asked the questions of ``source`` while the weights of one way are in place.

    Args:
        model: Under a gate, speech and text meet different weights: only the measured way is left.
        source: Where the questions are.
        measured: In which way the weights are scored.
    """
    from ...datamodules.sources.bad_examples import BadExamples
    from ...datamodules.sources.named import read_sources

    examples = read_sources(source, BadExamples("raise"))
    ways: list[Modality] = ["text"] if model.speech_llm is None else [measured] if model.gated else ["text", "speech"]
    return [way for way in ways if any(example.has(way) for example in examples)]
