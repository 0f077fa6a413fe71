"""The model and the examples of a command: options, and what they mean."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import speaking_as
from ..options import positive

if TYPE_CHECKING:
    from ...datamodules import Example
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
    parser: argparse.ArgumentParser,
    examples: int,
    modalities: Sequence[str] = ("text", "speech"),
    required: bool = True,
) -> None:
    """Adds the options about the examples.

    Args:
        parser: Gets them.
        examples: Default of their number.
        modalities: In which they may be asked.
        required: Whether the data must be named.
    """
    sources = "a JSONL manifest, a .txt file, spoken-facts/SPLIT or plain-text/SPLIT"
    parser.add_argument("--data", required=required, help=sources)
    parser.add_argument("--modality", choices=modalities, default="text", help="default: text")
    add_example_options(parser, examples)


def add_example_options(parser: argparse.ArgumentParser, examples: int) -> None:
    """Adds the options for the number of examples and how they are chosen and read.

    Args:
        parser: Gets them.
        examples: Default of their number.
    """
    parser.add_argument("--examples", type=positive, default=examples, help=f"number of examples (default: {examples})")
    parser.add_argument("--tokens", type=positive, help="cut plain text after N tokens (default: whole passages)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the choice of examples (default: 0)")
    parser.add_argument("--batch-size", type=positive, default=8, help="examples per batch (default: 8)")


def add_evaluation_options(parser: argparse.ArgumentParser, many: bool = False) -> None:
    """Adds the options for the examples on which the loss is measured, as opposed to those that are scored."""
    parser.add_argument(
        "--evaluate",
        metavar="DATA",
        nargs="+" if many else None,
        help="data on which to measure the loss (default: the next examples of --data)",
    )
    parser.add_argument(
        "--evaluate-examples", type=positive, help="number of examples (default: as many as are scored)"
    )


def chosen_examples(
    model: LoadedModel,
    arguments: argparse.Namespace,
    source: str | None = None,
    modality: Modality | None = None,
    skip: int = 0,
    count: int | None = None,
) -> list[Example]:
    """Returns the examples with the smallest hashes of (seed, id), the same in every command.

    Args:
        model: Has to listen if they are spoken.
        arguments: With the options of :func:`add_data_options`, or of :func:`add_example_options` and a source.
        source: Instead of ``--data``.
        modality: Instead of ``--modality``.
        skip: Skips this many examples, to get others than an earlier call did.
        count: Instead of ``--examples``.

    Raises:
        UserError: If no example is left, or the model cannot listen.
    """
    from ...inference import read_examples

    way: Modality = modality or arguments.modality
    if way == "speech":
        model.require_speech_llm()
    count = count or arguments.examples
    return read_examples(source or arguments.data, way, count, seed=arguments.seed, skip=skip)


def read_batches(
    model: LoadedModel, arguments: argparse.Namespace, modality: Modality | None = None, source: str | None = None
) -> list[Mapping[str, Any]]:
    """Returns the batches on which weights are scored.

    Args:
        model: Whose tokenizer and encoder are used.
        arguments: With the options of :func:`add_data_options`.
        modality: Instead of ``--modality``.
        source: Instead of ``--data``.

    Raises:
        UserError: If no example is left, or the model cannot listen.
    """
    way: Modality = modality or arguments.modality
    with speaking_as("importance"):
        chosen = chosen_examples(model, arguments, source, way)
        return list(model.inputs(chosen, way, arguments.batch_size, arguments.tokens))


def batches_before_and_after(
    base: LoadedModel, tuned: LoadedModel, arguments: argparse.Namespace, source: str | None = None
) -> list[Mapping[str, Any]]:
    """Returns batches of text for a model before and after tuning, in the tuned model's prompt format.

    A third-party audio LLM is prompted with its base's chat template, since its own may differ.

    Args:
        base: Before.
        tuned: After.
        arguments: With the options of :func:`add_data_options`.
        source: Instead of ``--data``.

    Raises:
        UserError: If no example is left, or the two tokenize the same text differently.
    """
    asked, other = (base, tuned) if tuned.origin.audio_llm else (tuned, base)
    return shared_batches(asked, other, arguments, source)


def shared_batches(
    base: LoadedModel, other: LoadedModel, arguments: argparse.Namespace, source: str | None = None
) -> list[Mapping[str, Any]]:
    """Returns batches of text for two models that share a tokenizer, in the first one's chat template.

    The two then differ in their weights, not in their prompts.

    Args:
        base: Whose tokenizer and chat template are used.
        other: Must tokenize text in the same way.
        arguments: With the options of :func:`add_data_options`.
        source: Instead of ``--data``.

    Raises:
        UserError: If no example is left, or the other one tokenizes differently.
    """
    with speaking_as("importance"):
        from ...lightning_modules.llm.vocabulary import check_same_ids

        examples = chosen_examples(base, arguments, source, "text")
        batches: list[Mapping[str, Any]] = list(base.inputs(examples, "text", arguments.batch_size, arguments.tokens))
        texts = [text for example in examples for text in (example.question, example.target)]
        ids = {int(number) for batch in batches for number in batch["input_ids"].unique()}
        ours, theirs = (model.front_end.tokenizer for model in (base, other))
        check_same_ids(ours, theirs, texts, ids, (base.origin.name, other.origin.name))
        return batches


def evaluation_batches(
    model: LoadedModel, arguments: argparse.Namespace, source: str | None, modality: Modality | None = None
) -> list[Mapping[str, Any]]:
    """Returns batches on which the loss is measured; those scored are left out if they come from the same data.

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
    way: Modality = modality or arguments.modality
    with speaking_as("importance"):
        chosen = chosen_examples(model, arguments, source, way, skip, count)
        return list(model.inputs(chosen, way, arguments.batch_size, arguments.tokens))


def modalities(model: LoadedModel, source: str, measured: Modality) -> list[Modality]:
    """Lists the modalities in which a model can be asked questions while one modality's weights are active.

    Args:
        model: Behind a gate, speech and text use different weights, so only the measured modality is possible.
        source: Where the questions are.
        measured: The modality in which the weights are scored.
    """
    from ...datamodules.sources.bad_examples import BadExamples
    from ...datamodules.sources.named import read_sources

    examples = read_sources(source, BadExamples("raise"))
    tuning = getattr(model.speech_llm, "tuning", None)
    gated = getattr(tuning, "gate", None) is not None
    ways: list[Modality] = ["text"] if tuning is None else [measured] if gated else ["text", "speech"]
    return [way for way in ways if any(example.has(way) for example in examples)]
