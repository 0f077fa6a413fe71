"""What is measured: a language model from a hub id, a folder, an asset or a TextKeep run, and examples for it."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import CommandError

PROMPT_OPTIONS = ("speech_instruction", "text_instruction", "system", "template_options")
PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class TextFrontEnd:
    """What the data needs of a model that cannot listen."""

    tokenizer: Any
    sampling_rate: int = 16000
    feature_dim: int = 1
    positions_per_second: float = 12.5
    fingerprint: str = "text"
    text_twins: bool = False

    def extract(self, waveform: Any) -> Any:
        """One frame of nothing; :func:`read_batches` lets no speech come here."""
        import torch

        return torch.zeros(1, 1)

    def num_positions(self, feature_length: int) -> int:
        """One position."""
        return 1


@dataclass
class Subject:
    """A model to measure.

    Attributes:
        name: As the user gave it.
        llm: The causal LM.
        front_end: Tokenizer and features.
        listener: The ``SpeechLLM`` around it, if it came from a run.
        prompts: Prompt settings of the run it came from.
    """

    name: str
    llm: Any
    front_end: Any
    listener: Any = None
    prompts: dict[str, Any] = field(default_factory=dict)


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Options about the machine, common to the commands that load a model."""
    parser.add_argument("--device", help="cpu, cuda, ... (default: a GPU if there is one)")
    parser.add_argument("--dtype", choices=PRECISIONS, default="float32", help="type of the weights (default: float32)")


def add_data_options(parser: argparse.ArgumentParser, examples: int) -> None:
    """Options about the examples."""
    parser.add_argument("--data", required=True, help="a JSONL manifest, or spoken-facts/SPLIT")
    parser.add_argument("--modality", choices=("text", "speech"), default="text", help="default: text")
    parser.add_argument("--examples", type=positive, default=examples, help=f"how many (default: {examples})")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of examples (default: 0)")
    parser.add_argument("--batch-size", type=positive, default=8, help="examples at once (default: 8)")


def positive(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)


def load_subject(name: str, device: str | None = None, dtype: str = "float32") -> Subject:
    """Loads a model in eval mode.

    Args:
        name: Hub id, folder, ``asset:NAME``, run directory or ``.ckpt`` file.
        device: Where to; ``None`` takes a GPU if there is one.
        dtype: Of the weights.

    Raises:
        CommandError: If it cannot be loaded.
    """
    import torch

    from ..quiet import quieten

    quieten()
    where = device or ("cuda" if torch.cuda.is_available() else "cpu")
    kind = getattr(torch, dtype)
    try:
        torch.empty(1, device=where)
    except (RuntimeError, AssertionError) as error:
        raise CommandError(f"importance: --device {where}: {str(error).splitlines()[0]}") from error
    path = Path(name)
    if path.suffix == ".ckpt" or (path / "checkpoints").is_dir():
        return _from_run(path, where, kind)
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from ...lightning_modules.pretrained import resolve_pretrained

    source = resolve_pretrained(name)
    try:
        llm: Any = AutoModelForCausalLM.from_pretrained(source, dtype=kind)
        tokenizer = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError) as error:
        allowed = "a hub id, a model folder, asset:NAME, a run directory, a .ckpt file"
        raise CommandError(
            f"importance: {name} cannot be loaded ({str(error).splitlines()[0]}); allowed: {allowed}"
        ) from error
    return Subject(name, llm.to(where).eval(), TextFrontEnd(tokenizer))


def _from_run(path: Path, device: str, dtype: Any) -> Subject:
    import pickle

    from ...lightning_modules import SpeechLLM
    from ..ask import run_config

    try:
        listener = SpeechLLM.from_run(path, map_location=device).to(device=device, dtype=dtype)
    except (pickle.UnpicklingError, RuntimeError, KeyError, EOFError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CommandError(f"importance: {path} cannot be loaded: {reason}") from error
    config = run_config(path)
    prompts = {key: config[key] for key in PROMPT_OPTIONS if config.get(key) is not None}
    return Subject(str(path), listener.llm, listener.front_end, listener, prompts)


def read_batches(
    subject: Subject,
    arguments: argparse.Namespace,
    source: str | None = None,
    skip: int = 0,
    modality: str | None = None,
) -> list[Mapping[str, Any]]:
    """Batches for ``probe``: the examples with the smallest hashes of (seed, id), the same in every command.

    Args:
        subject: Whose tokenizer and encoder are used.
        arguments: With the options of :func:`add_data_options`.
        source: Instead of ``--data``.
        skip: Leaves out so many examples first, to get others than those of another call.
        modality: Instead of ``--modality``.

    Raises:
        CommandError: If too few examples are left.
    """
    from ...datamodules import Probe, SpeechTextData
    from ...datamodules.bad_examples import BadExamples
    from ...datamodules.sources import read_sources

    source, modality = source or arguments.data, modality or arguments.modality
    if modality == "speech" and subject.listener is None:
        raise CommandError(f"importance: {subject.name} cannot listen; allowed: --modality text, or a TextKeep run")
    data = SpeechTextData(**subject.prompts)
    data.connect(subject.front_end)
    choice = Probe(source, modality, skip + arguments.examples, arguments.seed, arguments.batch_size)
    chosen = choice.choose(read_sources(source, BadExamples("raise")))[skip:]
    if not chosen:
        raise CommandError(
            f"importance: {source} has only {skip} examples with {modality}; give --evaluate or fewer --examples"
        )
    made = data.factory([]).batches(chosen, modality, arguments.batch_size)
    return [_as_mapping(subject, batch) for batch in made]


def _as_mapping(subject: Subject, batch: Any) -> Mapping[str, Any]:
    """Text goes in as ids, speech as the listener's embeddings."""
    import torch

    batch = batch.to(next(subject.llm.parameters()).device)
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "labels": batch.labels}
    if subject.listener is not None and batch.features.shape[0]:
        with torch.no_grad():
            inputs |= subject.listener.embed(batch)
    return {**inputs, "ids": batch.ids}
