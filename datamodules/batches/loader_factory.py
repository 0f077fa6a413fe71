"""Views to loaders, for one model."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..replay import KIND
from ..sources.bad_examples import BadExampleError, BadExamples
from ..sources.example import Example, Modality
from .batch import Batch
from .batch_loader import BatchLoader
from .collator import Collator
from .lengths import LengthEstimator
from .pairs import matched
from .prompts import ChatPrompt
from .rows import Row, RowReader, View
from .token_budget_sampler import TokenBudgetSampler
from .view_dataset import ViewDataset


@dataclass(frozen=True)
class LoaderOptions:
    """How batches are made, whatever the data."""

    tokens_per_batch: int = 2048
    """Most positions of a batch: rows x longest row, an audio position counted as a token."""
    eval_tokens_per_batch: int | None = None
    """The same in evaluation; None takes four times as many, as nothing is kept for a backward pass."""
    max_examples: int | None = None
    """Most rows of a training batch."""
    seed: int = 0
    """Seed of the shuffling."""
    num_workers: int = 0
    """Processes that read clips."""
    worker_timeout: float | None = None
    """Seconds after which a batch that does not come ends the run; None waits forever."""
    rank: int = 0
    """Rank of this process."""
    world_size: int = 1
    """Number of processes."""

    def __post_init__(self) -> None:
        """Refuses a timeout that is no time."""
        if self.worker_timeout is not None and not self.worker_timeout > 0:
            allowed = "seconds, more than 0, or null for no limit"
            raise ValueError(f"worker_timeout: {self.worker_timeout} (allowed: {allowed})")


class LoaderFactory:
    """Makes loaders and batches of views.

    Args:
        reader: Reads training clips.
        plain_reader: Reads clips for evaluation (without augmentation).
        prompt: Renders the questions.
        options: How batches are made.
        bad: Receives the examples that cannot be used.
        on_skip: Receives, in the main process, the errors of examples that a loader left out.
        barrier: Waits for the other ranks.
    """

    def __init__(
        self,
        reader: RowReader,
        plain_reader: RowReader,
        prompt: ChatPrompt,
        options: LoaderOptions,
        bad: BadExamples,
        on_skip: Callable[[list[BadExampleError]], None],
        barrier: Callable[[], None] | None = None,
    ) -> None:
        self.reader = reader
        self.plain_reader = plain_reader
        self.prompt = prompt
        self.options = options
        self.bad = bad
        self.on_skip = on_skip
        self.barrier = barrier
        front_end = reader.front_end
        self._training = LengthEstimator(front_end, prompt, reader.max_seconds, reader.augment)
        self._plain = LengthEstimator(front_end, prompt, reader.max_seconds)

    def asking(self, prompt_options: Mapping[str, Any]) -> LoaderFactory:
        """Returns the same factory with other words around the questions."""
        prompt = ChatPrompt(self.prompt.tokenizer, **prompt_options, around=self.prompt.around)
        return LoaderFactory(self.reader, self.plain_reader, prompt, self.options, self.bad, self.on_skip, self.barrier)

    def train(
        self,
        examples: Sequence[Example],
        modalities: Sequence[Modality],
        epoch: int = 0,
        shuffle: bool = True,
        replay: Sequence[Example] = (),
        ratio: float = 0.0,
        limit: int | float = 1.0,
    ) -> BatchLoader:
        """Makes the loader of training: every example in each of the modalities that it has.

        Args:
            examples: What to learn.
            modalities: "speech", "text" or both.
            epoch: First epoch.
            shuffle: False gives the same batches in every epoch.
            replay: Text to rehearse beside them.
            ratio: Its share of all rows.
            limit: How much of an epoch the Trainer takes (its ``limit_train_batches``).

        Raises:
            ValueError: If no example has one of the modalities.
        """
        views = [View(example, m) for example in examples for m in modalities if example.has(m)]
        if not views:
            fault = f"train: none of the {len(examples)} examples has the modality {' or '.join(modalities)}"
            if any(example.has("text") for example in examples):
                raise ValueError(f'{fault}, but text; allowed: "audio" in their lines, or --data.train_modalities text')
            raise ValueError(fault)
        _warn_of_missing("train", len(examples), sum(any(example.has(m) for m in modalities) for example in examples))
        twins = self.reader.front_end.text_twins
        kept, lengths = self._training.measure(views, self.bad, self.options.tokens_per_batch, twins)
        again, more = self._training.measure([View(e, "text") for e in replay], self.bad, self.options.tokens_per_batch)
        kinds = [*(view.modality for view in kept), *[KIND] * len(again)]
        options, shares = self.options, {KIND: ratio} if again else None
        sampler = TokenBudgetSampler(
            lengths + more,
            options.tokens_per_batch,
            options.max_examples,
            kinds,
            options.seed,
            shuffle,
            *self._ranks,
            shares,
        )
        return self._loader(kept + again, sampler, self.reader, epoch=epoch, training=True, twins=twins, limit=limit)

    def evaluation(self, examples: Sequence[Example], answers: bool = True) -> dict[str, BatchLoader]:
        """Makes loaders "speech" and "text" of the same examples in the same batches; one, if a modality is missing.

        Args:
            examples: Those that lack a modality which others have are left out, so that the rest are matched pairs.
            answers: False gives left-padded prompts to generate from.
        """
        pairs, modalities = matched(examples)
        _warn_of_missing("evaluation", len(examples), len(pairs))
        per_modality = []
        for modality in modalities:
            views, lengths = self._plain.measure([View(e, modality) for e in pairs], self.bad)
            per_modality.append({view.example.id: length.own for view, length in zip(views, lengths, strict=True)})
        both = [e for e in pairs if all(e.id in known for known in per_modality)]
        sampler = self._eval_sampler([max(known[e.id] for known in per_modality) for e in both])
        everywhere = bool(both) and self.options.world_size > 1
        return {
            m: self._loader(
                [View(e, m) for e in both], sampler, self.plain_reader, answers=answers, everywhere=everywhere
            )
            for m in modalities
        }

    def loader(
        self, examples: Sequence[Example], modality: Modality, answers: bool = True, twins: bool = False
    ) -> BatchLoader:
        """Makes a loader of examples in one modality, sorted by length, each example on one rank only.

        Args:
            examples: What to load.
            modality: "speech" or "text".
            answers: False gives left-padded prompts to generate from.
            twins: Whether batches of speech come with their text twins.
        """
        kept, lengths = self._plain.measure([View(e, modality) for e in examples], self.bad, twins=twins)
        sampler = self._eval_sampler([sum(length) for length in lengths])
        return self._loader(kept, sampler, self.plain_reader, answers=answers, twins=twins)

    def batches(
        self,
        examples: Sequence[Example],
        modality: Modality,
        rows: int,
        answers: bool = True,
        tokens: int | None = None,
    ) -> list[Batch]:
        """Makes batches of ``rows`` examples in the given order, in this process.

        Args:
            examples: With questions in this modality.
            modality: ``speech`` or ``text``.
            rows: Rows of a batch.
            answers: With answers, right padded; else prompts to generate from, left padded.
            tokens: Plain text is cut after this many; None leaves it whole.

        Raises:
            BadExampleError: If a clip cannot be read.
        """
        cached = self.plain_reader.cache is not None
        collator = Collator(
            self.plain_reader.front_end, self.prompt, encoded=cached, answers=answers, plain_tokens=tokens
        )
        read: list[Row] = [self.plain_reader.read(View(example, modality)) for example in examples]
        return [collator(read[i : i + rows]) for i in range(0, len(read), rows)]

    def fill_cache(self, examples: Sequence[Example]) -> None:
        """Encodes the clips that the feature cache lacks, each rank a part of them; does nothing without a cache.

        Every rank must call it with the same examples.
        """
        if self.plain_reader.cache is None:
            return
        spoken = [example for example in examples if example.has("speech")]
        mine = spoken[self.options.rank :: self.options.world_size]
        self.plain_reader.fill_cache(mine, self.bad)
        if self.barrier is not None and spoken:
            self.barrier()

    @property
    def _ranks(self) -> tuple[int, int]:
        return self.options.rank, self.options.world_size

    def _eval_sampler(self, lengths: Sequence[int]) -> TokenBudgetSampler:
        options = self.options
        # An evaluation item is never left out: one that is longer than the budget gets its own batch.
        budget = max([options.eval_tokens_per_batch or 4 * options.tokens_per_batch, *lengths])
        return TokenBudgetSampler(lengths, budget, None, None, options.seed, False, *self._ranks, repeat=False)

    def _loader(
        self,
        views: list[View],
        sampler: TokenBudgetSampler,
        reader: RowReader,
        answers: bool = True,
        epoch: int = 0,
        training: bool = False,
        twins: bool = False,
        limit: int | float = 1.0,
        everywhere: bool = False,
    ) -> BatchLoader:
        collator = Collator(reader.front_end, self.prompt, answers, encoded=reader.cache is not None, twins=twins)
        dataset = ViewDataset(views, reader, collator, self.bad.policy, refill=training)
        # Text alone is read in no time: workers would only cost memory.
        spoken = any(view.modality == "speech" for view in views)
        workers = min(self.options.num_workers, len(sampler)) if spoken else 0
        timeout = self.options.worker_timeout
        return BatchLoader(dataset, sampler, self.on_skip, epoch, workers, timeout, training, limit, everywhere)


def _warn_of_missing(use: str, given: int, used: int) -> None:
    if used < given:
        warnings.warn(f"{use}: {given - used} of {given} examples lack speech or text and are left out", stacklevel=3)
