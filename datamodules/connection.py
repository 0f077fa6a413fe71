"""The model that a data module is connected to, and the maker of its loaders."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

import lightning as L

from .batches.augment import Augment
from .batches.feature_cache import FeatureCache
from .batches.front_end import Encode, SpeechFrontEnd, words_around
from .batches.loader_factory import LoaderFactory, LoaderOptions
from .batches.prompts import ChatPrompt
from .batches.rows import RowReader
from .sources.bad_examples import BadExampleError, BadExamples


class _Listener(Protocol):
    """What is asked of a trainer's module."""

    front_end: SpeechFrontEnd
    encode_speech: Encode


class _EpochsDone(Protocol):
    """What Lightning counts of epochs; its declared type lacks ``processed``, which the objects have."""

    processed: int


@dataclass(frozen=True)
class BatchSettings:
    """How examples become batches, whatever the model.

    Attributes:
        loaders: Budget, seed and workers of the loaders.
        prompts: Arguments of ``ChatPrompt`` besides the tokenizer.
        max_seconds: Longest clip allowed.
        augment: Changes of training clips, or None.
        feature_cache: Folder for outputs of the frozen encoder, or None.
    """

    loaders: LoaderOptions
    prompts: Mapping[str, Any]
    max_seconds: float
    augment: Augment | None
    feature_cache: str | None


class ModelConnection:
    """Knows the model that batches are made for: one that was connected by hand, or else the trainer's.

    Args:
        settings: How batches are made.
        bad: Receives the examples that cannot be used.
        on_skip: Receives, in the main process, the errors of examples that a loader left out.
    """

    def __init__(
        self, settings: BatchSettings, bad: BadExamples, on_skip: Callable[[list[BadExampleError]], None]
    ) -> None:
        self.settings = settings
        self.bad = bad
        self.on_skip = on_skip
        self.front_end: SpeechFrontEnd | None = None
        self._encode: Encode | None = None
        self._by_hand = False
        self._factory: LoaderFactory | None = None

    def connect(self, front_end: SpeechFrontEnd, encode: Encode | None = None) -> None:
        """Takes a model, which no trainer's then replaces.

        Args:
            front_end: Tokenizer and feature extraction.
            encode: The frozen encoder, for the feature cache.
        """
        self.front_end, self._encode, self._by_hand = front_end, encode, True
        self._factory = None

    def forget_trainer(self) -> None:
        """Forgets a model that was the trainer's: the trainer may now have another one."""
        if not self._by_hand:
            self.front_end = self._factory = None

    def factory(self, trainer: L.Trainer | None) -> LoaderFactory:
        """Returns the maker of loaders for the model: the same object as long as the model is the same.

        Args:
            trainer: Whose module is the model if none was connected, and whose ranks share the data; or None.

        Raises:
            ValueError: If no model is connected and there is no trainer.
        """
        if self.front_end is None:
            if trainer is None:
                raise ValueError("the data is connected to no model (allowed: data.connect(front_end), or a Trainer)")
            module = cast(_Listener, trainer.lightning_module)
            self.front_end = module.front_end
            self._encode = module.encode_speech if self.settings.feature_cache else None
        if self._factory is None:
            self._factory = self._make(self.front_end, trainer)
        return self._factory

    def _make(self, front_end: SpeechFrontEnd, trainer: L.Trainer | None) -> LoaderFactory:
        # Tokenizers are used before the workers are forked; unless told, they warn of it in each.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        settings = self.settings
        folder, augment, options = settings.feature_cache, settings.augment, settings.loaders
        cache = FeatureCache(folder, front_end.fingerprint, self._encode) if folder else None
        plain = RowReader(front_end, settings.max_seconds, cache=cache)
        reader = RowReader(front_end, settings.max_seconds, augment) if augment else plain
        if trainer is not None:
            options = replace(options, rank=trainer.global_rank, world_size=trainer.world_size)
        prompt = ChatPrompt(front_end.tokenizer, **settings.prompts, around=words_around(front_end))
        barrier = trainer.strategy.barrier if trainer else None
        return LoaderFactory(reader, plain, prompt, options, self.bad, self.on_skip, barrier)


def epoch_and_limit(trainer: L.Trainer | None) -> tuple[int, int | float]:
    """Returns the epoch that training begins with, and how much of an epoch it takes (``limit_train_batches``)."""
    if trainer is None:
        return 0, 1.0
    # A run that continues at the end of an epoch has processed it, and completes it only later.
    current = cast(_EpochsDone, trainer.fit_loop.epoch_progress.current)
    return max(trainer.current_epoch, current.processed), trainer.limit_train_batches
