"""The row that a plan assumes, because it is made before the data are read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from ..datamodules import SpeechTextData
from ..datamodules.batches.batch import Batch
from ..datamodules.batches.batch_loader import BatchLoader
from ..datamodules.batches.loader_factory import LoaderFactory, LoaderOptions
from ..datamodules.batches.rows import Row, RowReader, View
from ..datamodules.sources.example import AudioArray, Example, Modality

SAMPLING_RATE = 16000
SPEECH, TEXT, REPLAY = "speech", "text", "replayed text"
_MOST_ROWS = 4096


@dataclass(frozen=True)
class Question:
    """A typical row, with which every batch of a plan is filled.

    By default that of InstructS2S-200K (arXiv 2409.06666): 7.5 s of speech, a question of 25 tokens, an answer of 40.

    Attributes:
        seconds: Of the spoken question.
        question: Tokens of its text, about.
        answer: Tokens of the answer, about.
        passage: Tokens of a passage of replayed text, about.
    """

    seconds: float = 7.5
    question: int = 25
    answer: int = 40
    passage: int = 256

    def examples(self, count: int, plain: bool = False) -> list[Example]:
        """Makes examples that differ in nothing but their ids."""
        noise = torch.randn(int(self.seconds * SAMPLING_RATE), generator=torch.Generator().manual_seed(0)) * 0.01
        target = _words(self.passage if plain else self.answer)
        one = Example(
            id="",
            question="" if plain else _words(self.question),
            answers=(target,),
            target=target,
            audio=None if plain else AudioArray(noise, SAMPLING_RATE),
            location="the row of the plan",
            plain=plain,
        )
        return [replace(one, id=f"plan/{number}") for number in range(count)]


def _words(count: int) -> str:
    """Returns text of about that many tokens: a common word is one token in every vocabulary."""
    return " ".join(["the"] * count)


class OneClip(RowReader):
    """Reads the clip that all rows share once.

    Args:
        reader: That of the data module.
    """

    def __init__(self, reader: RowReader) -> None:
        super().__init__(reader.front_end, reader.max_seconds, reader.augment, reader.cache)
        self._spoken: Row | None = None

    def read(self, view: View, epoch: int = 0) -> Row:
        """Returns a row with the features of the first one that was spoken."""
        if view.modality == "text":
            return super().read(view, epoch)
        if self._spoken is None:
            self._spoken = super().read(view, epoch)
        return replace(self._spoken, example=view.example)


def _factory_of(made: LoaderFactory, options: LoaderOptions, reader: RowReader, plain: RowReader) -> LoaderFactory:
    return LoaderFactory(reader, plain, made.prompt, options, made.bad, made.on_skip)


class Batches:
    """Makes full batches with the data module's own loaders, template and sampler.

    Args:
        data: Connected to a model.
        question: What all rows are.
    """

    def __init__(self, data: SpeechTextData, question: Question) -> None:
        self._data, self._question = data, question
        made = data.factory()
        options = replace(made.options, num_workers=0)  # there is one clip to read
        self._factory = _factory_of(made, options, OneClip(made.reader), OneClip(made.plain_reader))

    @property
    def options(self) -> tuple[int, int]:
        """The budgets of the config: positions of a batch of training and of evaluation."""
        found = self._factory.options
        return found.tokens_per_batch, found.eval_tokens_per_batch or 4 * found.tokens_per_batch

    def kinds(self) -> list[str]:
        """Returns the kinds of batches that a fit trains on."""
        modality = self._data.train_modalities
        replayed = [REPLAY] if self._data.replays else []
        return [*([SPEECH, TEXT] if modality == "both" else [modality]), *replayed]

    def training(self, kind: str, budget: int | None = None) -> Batch:
        """Returns the largest batch of a kind.

        Args:
            kind: One of :meth:`kinds`.
            budget: Positions; None takes the config's, and its limit on the rows with it.

        Raises:
            BadExampleError: If a single row is over the budget.
        """
        factory = self._factory if budget is None else self._with(budget)
        rows = self.rows(kind, factory)
        return next(self._loaded(factory, kind, rows))

    def rows(self, kind: str, factory: LoaderFactory | None = None) -> int:
        """Counts the rows of the largest batch of a kind."""
        factory = factory or self._factory
        length = self.length(kind, factory)
        rows = min(_MOST_ROWS, max(1, factory.options.tokens_per_batch // length))
        return min(rows, factory.options.max_examples or rows)

    def length(self, kind: str, factory: LoaderFactory | None = None) -> int:
        """Counts the positions of a row, with its text twin where the objectives ask for one."""
        loader = self._loader(factory or self._factory, kind, 1)
        return int(loader.position.sampler.lengths.sum())

    def evaluation(self) -> Batch:
        """Returns the largest batch of evaluation."""
        modality: Modality = "text" if self._data.train_modalities == "text" else "speech"
        one = self._factory.loader(self._question.examples(1), modality).position.sampler
        rows = min(_MOST_ROWS, max(1, self.options[1] // int(one.lengths.sum())))
        return next(iter(self._factory.loader(self._question.examples(rows), modality)))

    def probe(self, modality: str, rows: int) -> Batch:
        """Returns a batch of an importance probe."""
        return self._factory.batches(self._question.examples(rows), modality, rows)[0]  # type: ignore[arg-type]

    def _with(self, budget: int) -> LoaderFactory:
        made = self._factory
        options = replace(made.options, tokens_per_batch=budget, max_examples=None)
        return _factory_of(made, options, made.reader, made.plain_reader)

    def _loader(self, factory: LoaderFactory, kind: str, rows: int) -> BatchLoader:
        examples = self._question.examples(rows, plain=kind == REPLAY)
        return factory.train(examples, ["speech" if kind == SPEECH else "text"], shuffle=False)

    def _loaded(self, factory: LoaderFactory, kind: str, rows: int) -> Iterator[Batch]:
        return iter(self._loader(factory, kind, rows))
