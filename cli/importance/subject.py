"""What is measured: a language model from a hub id, a folder, an asset, a TextKeep run or an export."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import CommandError
from ..listener import PROMPT_OPTIONS, load_listener, run_config
from ..run_directory import CONFIG_FILE

PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class TextFrontEnd:
    """What the data needs of a model that cannot listen."""

    tokenizer: Any
    vocabulary: int | None = None
    sampling_rate: int = 16000
    feature_dim: int = 1
    positions_per_second: float = 12.5
    fingerprint: str = "text"
    text_twins: bool = False

    def extract(self, waveform: Any) -> Any:
        """One frame of nothing; ``read_batches`` lets no speech come here."""
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
        checkpoint: File of the run that the weights came from.
    """

    name: str
    llm: Any
    front_end: Any
    listener: Any = None
    prompts: dict[str, Any] = field(default_factory=dict)
    checkpoint: Path | None = None

    @property
    def run(self) -> Path | None:
        """The run directory that the model came from."""
        folder = self.checkpoint.parent if self.checkpoint else None
        return folder.parent if folder is not None and folder.name == "checkpoints" else None


SUBJECT_HELP = "hub id, folder, asset:NAME, run directory, .ckpt file or export"


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Options about the machine, common to the commands that load a model."""
    parser.add_argument("--device", help="cpu, cuda, ... (default: a GPU if there is one)")
    parser.add_argument("--dtype", choices=PRECISIONS, default="float32", help="type of the weights (default: float32)")


def load_subject(name: str, device: str | None = None, dtype: str = "float32", owner: str = "importance") -> Subject:
    """Loads a model in eval mode.

    Args:
        name: Hub id, folder, ``asset:NAME``, run directory, ``.ckpt`` file or export.
        device: Where to; ``None`` takes a GPU if there is one.
        dtype: Of the weights.
        owner: The command that speaks in errors.

    Raises:
        CommandError: If it cannot be loaded.
    """
    import torch

    from ...lightning_modules.export_folder import is_export
    from ..quiet import quieten

    quieten()
    kind = getattr(torch, dtype)
    path = Path(name)
    if (
        path.suffix == ".ckpt"
        or is_export(path)
        or any((path / part).exists() for part in ("checkpoints", CONFIG_FILE))
    ):
        return _from_run(path, device, kind, owner)
    where = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(1, device=where)
    except (RuntimeError, AssertionError) as error:
        raise CommandError(f"{owner}: --device {where}: {str(error).splitlines()[0]}") from error
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from ...lightning_modules.pretrained import resolve_pretrained
    from ...lightning_modules.vocabulary import check_vocabulary

    source = resolve_pretrained(name)
    try:
        llm: Any = AutoModelForCausalLM.from_pretrained(source, dtype=kind)
        tokenizer = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError) as error:
        allowed = "a hub id, a model folder, asset:NAME, a run directory, a .ckpt file, an export"
        raise CommandError(
            f"{owner}: {name} cannot be loaded ({str(error).splitlines()[0]}); allowed: {allowed}"
        ) from error
    check_vocabulary(llm, tokenizer, f"{owner}: {name}")
    return Subject(name, llm.to(where).eval(), TextFrontEnd(tokenizer, llm.get_input_embeddings().weight.shape[0]))


def _from_run(path: Path, device: str | None, dtype: Any, owner: str) -> Subject:
    from ...lightning_modules.checkpoints import find_checkpoint
    from ...lightning_modules.export_folder import is_export

    listener = load_listener(path, device, owner).to(dtype=dtype)
    config = run_config(path)
    prompts = {key: config[key] for key in PROMPT_OPTIONS if config.get(key) is not None}
    checkpoint = None if is_export(path) else find_checkpoint(path).resolve()
    return Subject(str(path), listener.llm, listener.front_end, listener, prompts, checkpoint)


def find_matrix(snapshot: Any, part: str) -> str:
    """The name of the one matrix of a snapshot that has ``part`` in it.

    Raises:
        CommandError: If there is none, or more than one.
    """
    names = [matrix.name for matrix in snapshot.table]
    found = [name for name in names if part in name] if part not in names else [part]
    if len(found) != 1:
        shown = ", ".join((found or names)[:3])
        raise CommandError(f"importance: --matrix {part} fits {len(found)} matrices; allowed: one, such as {shown}")
    return found[0]


def merged(subject: Subject) -> Any:
    """The language model with its adapters folded into the weights, in place; parameter names are the base model's.

    Raises:
        CommandError: If its adapters cannot be folded in.
    """
    from ...lightning_modules.adapters import merge_adapters

    if subject.listener is not None and not subject.listener.tuning.mergeable:
        raise CommandError(
            f"importance: {subject.name} has adapters that act on some positions only: there are no tuned weights to "
            "compare; allowed: a run whose tuning can be merged"
        )
    merge_adapters(subject.llm)
    return subject.llm
