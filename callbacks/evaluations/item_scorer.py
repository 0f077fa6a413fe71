"""Asks a model questions through the trainer's data module: greedy responses and losses on the targets, by item."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from typing import Any

from lightning.pytorch import Trainer

from ...evaluation import ItemDivergence, Prediction, exact_match, qa_match, token_f1
from ..contract import Batch, ReadBatch
from ..stopping.give_way import taking_turns
from .score_memory import ScoreMemory


@dataclass
class Scores:
    """What was measured of items in one modality, by item id. Losses are (mean nats per token, tokens)."""

    responses: dict[str, str] = field(default_factory=dict)
    losses: dict[str, tuple[float, int]] = field(default_factory=dict)
    shuffled_losses: dict[str, tuple[float, int]] = field(default_factory=dict)

    def update(self, other: Scores) -> None:
        """Takes over another rank's items."""
        self.responses |= other.responses
        self.losses |= other.losses
        self.shuffled_losses |= other.shuffled_losses

    def record(self, example: Any, modality: str) -> Prediction | None:
        """Makes the item's record; None if nothing was measured of it (its clip could not be read)."""
        identity = example.id
        if identity not in self.responses and identity not in self.losses:
            return None
        response = self.responses.get(identity)
        loss, tokens = self.losses.get(identity, (None, 0))
        return Prediction(
            id=identity,
            modality=modality,
            question=example.question,
            answers=tuple(example.answers),
            prediction=response,
            correct=None if response is None else qa_match(response, example.answers),
            loss=loss,
            tokens=tokens,
            shuffled_loss=self.shuffled_losses[identity][0] if identity in self.shuffled_losses else None,
            source=example.source,
            category=str(example.metadata.get("category", "")),
            exact=None if response is None else exact_match(response, example.answers),
            f1=None if response is None else token_f1(response, example.answers),
        )


class ItemScorer:
    """Scores this rank's share of items on the device and in the precision of the trainer.

    Args:
        trainer: Its data module makes the batches (``loader(examples, modality, answers)``).
        pl_module: Offers ``generate(batch, max_new_tokens)`` and ``read(batch)``.
        max_new_tokens: Longest response; None leaves it to the model.
        memory: Knows what the model scored on text, if it does.
    """

    def __init__(
        self, trainer: Trainer, pl_module: Any, max_new_tokens: int | None, memory: ScoreMemory | None = None
    ) -> None:
        self.trainer = trainer
        self.memory = memory
        self.precision = trainer.precision_plugin
        self.data: Any = trainer.datamodule  # type: ignore[attr-defined]
        self.model = pl_module
        self.max_new_tokens = max_new_tokens
        self.max_batches = int(trainer.fast_dev_run) or None  # type: ignore[attr-defined]

    def responses(
        self,
        examples: Sequence[Any],
        modality: str,
        speech_instruction: str | None = None,
        max_new_tokens: int | None = None,
        untouched: bool = False,
    ) -> dict[str, str]:
        """Generates the greedy response of each item.

        Args:
            examples: What is asked.
            modality: ``speech`` or ``text``.
            speech_instruction: Text after the clip, instead of the data module's.
            max_new_tokens: Maximum length of a response, instead of the scorer's.
            untouched: Ask the LLM as it was before tuning (written questions only).
        """
        found: dict[str, str] = {}
        generate = self.model.generate_untouched if untouched else self.model.generate
        length = max_new_tokens or self.max_new_tokens
        for batch in self._batches(examples, modality, answers=False, speech_instruction=speech_instruction):

            def write(batch: Batch = batch) -> list[str]:
                with self.precision.val_step_context():  # the model alone: features are computed in full precision
                    return generate(batch, max_new_tokens=length)

            texts = write() if untouched else self._of_text(batch, ["written", length], write)
            found.update(zip(batch.ids, texts, strict=True))
        return found

    def recall(self, asked: Any, measure: Callable[[], Any]) -> Any:
        """Returns what the memory knows of text (:meth:`ScoreMemory.recall`); without one it is measured."""
        return measure() if self.memory is None else self.memory.recall(asked, measure)

    def _of_text(self, batch: Batch, asked: list[Any], measure: Callable[[], Any]) -> Any:
        """Returns what the memory knows of a batch of text, asked so."""
        if len(batch.features) or {*batch.modality} != {"text"}:
            return measure()
        tensors = [batch.input_ids, batch.attention_mask, batch.labels, batch.audio_mask]
        return self.recall([*asked, tensors, batch.ids, batch.continues, batch.end_id], measure)

    def read(self, examples: Sequence[Any], modality: str, answer: bool) -> Scores:
        """Measures losses and, where asked, responses of each item in one pass over its prompt.

        Args:
            examples: What is asked.
            modality: ``speech`` or ``text``.
            answer: Whether responses are wanted. Some may be missing: those of an LLM that must be asked anew.
        """
        found, wanted = Scores(), {example.id for example in examples}
        for batch in self._batches(examples, modality, answers=True):

            def measure(batch: Batch = batch) -> dict[str, Any]:
                part = Scores()
                with self.precision.val_step_context():
                    read = self.model.read(batch)
                self.take(part, read, batch.ids, wanted, answer)
                return asdict(part)

            rows = [identity in wanted for identity in batch.ids]
            part = self._of_text(batch, ["read", rows, answer, self.max_new_tokens], measure)
            found.update(Scores(part["responses"], {key: tuple(pair) for key, pair in part["losses"].items()}))
        return found

    def take(self, found: Scores, read: ReadBatch, ids: Sequence[str], wanted: Collection[str], answer: bool) -> None:
        """Notes the losses of a batch that was read, and lets the model answer it where asked.

        Args:
            found: Gets them.
            read: What the model read.
            ids: Of its rows.
            wanted: The items that count.
            answer: Whether responses are wanted.
        """
        rows = [row for row, identity in enumerate(ids) if identity in wanted]
        losses, tokens = read.losses.double().tolist(), read.tokens.tolist()
        found.losses.update({ids[row]: (losses[row] / max(tokens[row], 1), int(tokens[row])) for row in rows})
        if answer and rows and read.answer is not None:
            with self.precision.val_step_context():
                texts = read.answer(rows, self.max_new_tokens)
            found.responses.update(zip([ids[row] for row in rows], texts, strict=True))

    def losses(self, examples: Sequence[Any], modality: str) -> dict[str, tuple[float, int]]:
        """Measures the mean loss on the target in nats per token, and counts its tokens, by item."""
        return self.read(examples, modality, answer=False).losses

    def divergences(self, examples: Sequence[Any], modality: str) -> list[ItemDivergence]:
        """Measures forgetting and, of speech, misalignment by item."""
        found: list[ItemDivergence] = []
        for batch in self._batches(examples, modality, answers=True, twins=True):
            with self.precision.val_step_context():
                sums = self.model.divergences(batch)
            columns = [sums.tokens.tolist(), sums.forgetting.double().tolist()]
            spoken = sums.misalignment
            columns.append([None] * len(batch) if spoken is None else spoken.double().tolist())
            found += [ItemDivergence(*row) for row in zip(batch.ids, *columns, strict=True)]
        return found

    def _batches(self, examples: Sequence[Any], modality: str, answers: bool, **options: Any) -> Iterator[Batch]:
        """Yields batches on the device, and way before each; ``options`` are those of the data module's ``loader``."""
        loader = self.data.loader(list(examples), modality, answers=answers, **options)
        with taking_turns(self.trainer) as give_way:
            give_way()
            for batch in islice(loader, self.max_batches):
                yield replace(batch, features=self.precision.convert_input(batch.features)).to(self.model.device)
                give_way()


def exchange_clips(examples: Sequence[Any], seed: int) -> list[Any]:
    """Returns every example another one's clip: one random cycle through all of them (Sattolo's algorithm).

    The exchange depends on the ids and the seed alone, not on batches, ranks or steps.

    Args:
        examples: Those with a clip.
        seed: The same seed gives the same exchange.

    Returns:
        The examples with exchanged clips; none if there are fewer than two.
    """
    if len(examples) < 2:
        return []
    ordered = sorted(examples, key=lambda example: example.id)
    donors, generator = list(ordered), random.Random(seed)
    for i in range(len(donors) - 1, 0, -1):
        j = generator.randrange(i)
        donors[i], donors[j] = donors[j], donors[i]
    return [_with_clip(example, donor) for example, donor in zip(ordered, donors, strict=True)]


def _with_clip(example: Any, donor: Any) -> Any:
    """Returns the example the donor's audio, and the length that goes with it."""
    metadata = {key: value for key, value in example.metadata.items() if key != "seconds"}
    if "seconds" in donor.metadata:
        metadata["seconds"] = donor.metadata["seconds"]
    return replace(example, audio=donor.audio, metadata=metadata)
