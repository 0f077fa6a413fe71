"""Sources named by text, and lists of them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse.typing import Path_fr

from ...foundation.assets import ASSET, PLAIN_TEXT, embedded_split, is_embedded, locate
from ...foundation.text_lines import plain_name
from .bad_examples import BadExamples
from .example import Example
from .manifest import Manifest
from .plain_text import PlainText
from .source import Source, without_duplicates

if TYPE_CHECKING:
    SourceName = str | Path | Source
else:
    # A path type, so that jsonargparse does not open a named text file as a config and take its content for the name;
    # its own one, which comes last and refuses what is no path: pathlib's takes anything.
    SourceName = str | Source | Path_fr
Sources = SourceName | list[SourceName] | None
_STAGES: dict[str | None, tuple[str, ...]] = {
    "fit": ("train", "val"),
    "validate": ("val",),
    "test": ("test",),
    "predict": ("predict",),
    None: ("train", "val", "test", "predict"),
}


class Splits:
    """The examples for training, validation, test and prediction, each read once.

    Args:
        sources: By split ("train", "val", "test", "predict"); without one for "predict" it takes that of "test".
        bad: Receives the examples that cannot be used.
        eval_limit: Most examples of a split that is not for training, or None.
    """

    def __init__(self, sources: dict[str, Sources], bad: BadExamples, eval_limit: int | None = None) -> None:
        self.sources = sources if sources["predict"] is not None else {**sources, "predict": sources["test"]}
        self.bad = bad
        self.eval_limit = eval_limit
        self._read: dict[str, list[Example]] = {}

    def read_stage(self, stage: str | None) -> None:
        """Reads what a stage of the Trainer needs; None reads all.

        Raises:
            ValueError: If the stage's own source is not set.
        """
        if stage is not None and self.sources[_STAGES[stage][0]] is None:
            allowed = "a manifest, spoken-facts/SPLIT, a source, or a list of these"
            raise ValueError(f"data.{_STAGES[stage][0]} is not set (allowed: {allowed})")
        for split in _STAGES[stage]:
            self.read(split)

    def read(self, split: str) -> list[Example]:
        """Reads the usable examples of a split; none if its source is not set."""
        if split not in self._read:
            examples = read_sources(self.sources[split], self.bad, answers_required=split != "predict")
            chosen = examples if split == "train" else limited(examples, self.eval_limit)
            if split in ("test", "predict") and len(chosen) < len(examples):
                from lightning.pytorch.utilities import rank_zero_info  # seconds that `textkeep report` need not wait

                rank_zero_info(f"{split}: {len(chosen)} of {len(examples)} questions (data.eval_limit; null takes all)")
            self._read[split] = chosen
        return self._read[split]


def as_source(source: SourceName) -> Source:
    """Returns the source that a text names: a split of an embedded set, a fetched set, a manifest or a .txt file.

    Raises:
        FileNotFoundError: If an embedded set has no such split, or the asset was not fetched.
    """
    if isinstance(source, Source):
        return source
    source = str(source)
    if source.startswith(ASSET):
        return Manifest(str(_asset_manifest(source.removeprefix(ASSET))))
    if plain_name(source).suffix == ".txt":
        return PlainText(source)
    if not is_embedded(source):
        return Manifest(source)
    path = str(embedded_split(source))
    embedded = PlainText(path, max_words=None) if source.startswith(PLAIN_TEXT) else Manifest(path)
    embedded.name = source
    return embedded


def _asset_manifest(name: str) -> Path:
    path = locate(name) / "manifest.jsonl"
    if not path.is_file():
        raise FileNotFoundError(f"{ASSET}{name} holds no examples ({path}): allowed: an asset with a manifest")
    return path


def read_sources(sources: Sources, bad: BadExamples, answers_required: bool = True) -> list[Example]:
    """Reads one or several sources, in order.

    Raises:
        ValueError: If a source has no usable example.
        BadExampleError: If two sources use the same id and the policy is ``raise``.
    """
    if sources is None:
        return []
    listed = sources if isinstance(sources, list) else [sources]
    examples: list[Example] = []
    for source in listed:
        read = as_source(source).read(bad, answers_required)
        if not read:
            raise ValueError(f"{_named(source)}: no usable example (skipped: {dict(bad.counts) or 'none'})")
        examples += read
    return without_duplicates(examples, bad) if len(listed) > 1 else examples


def limited(examples: list[Example], limit: int | None) -> list[Example]:
    """Keeps ``limit`` examples in their order: a fixed choice by hash of the id, so that no category is favoured."""
    if limit is None or len(examples) <= limit:
        return examples
    ranked = sorted(range(len(examples)), key=lambda i: hashlib.sha256(examples[i].id.encode()).digest())
    return [examples[i] for i in sorted(ranked[:limit])]


def _named(source: SourceName) -> str:
    return source.name if isinstance(source, Source) else str(source)
