"""What callbacks need to know of a batch and a model; they import neither the data side nor the model side."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import Field
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

import torch
from torch import Tensor


class Batch(Protocol):
    """B questions, as a data module's loaders give them: a dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def ids(self) -> list[str]:
        """The B rows' example ids."""

    @property
    def modality(self) -> Sequence[str]:
        """``speech`` or ``text`` of each of the B rows."""

    @property
    def examples(self) -> Iterable[Any]:
        """The B rows' examples, in order."""

    @property
    def features(self) -> Tensor:
        """(N, C, F) float32, of the N clips."""

    @property
    def input_ids(self) -> Tensor:
        """(B, T) token ids, padded."""

    @property
    def attention_mask(self) -> Tensor:
        """(B, T), 0 at padding."""

    @property
    def labels(self) -> Tensor:
        """(B, T) token ids of what is supervised, -100 elsewhere."""

    @property
    def audio_mask(self) -> Tensor:
        """(B, T) bool, true where positions of a clip go."""

    @property
    def continues(self) -> bool:
        """Whether each row's answer begins where its prompt, asked alone, ends."""

    @property
    def end_id(self) -> int | None:
        """Token that ends an answer."""

    def __len__(self) -> int:
        """Counts the rows."""

    def to(self, device: torch.device | str) -> Self:
        """Returns the same batch with its tensors on a device."""


@runtime_checkable
class ReadBatch(Protocol):
    """B questions with answers that a model has read: what its validation and test steps return, and its ``read``."""

    @property
    def losses(self) -> Tensor:
        """(B,) summed losses on the answers, nats."""

    @property
    def tokens(self) -> Tensor:
        """(B,) numbers of answer tokens."""

    @property
    def answer(self) -> Callable[[Sequence[int], int | None], list[str]] | None:
        """Generates greedy answers for some rows, up to a number of tokens, once; None if it must be prompted again."""


@runtime_checkable
class TellsFigures(Protocol):
    """A callback that prints figures of a validation or test on its own line."""

    @property
    def told(self) -> Collection[str]:
        """Keys of the figures that its last line has told, or that say the same."""


@runtime_checkable
class DoubtsWeights(Protocol):
    """A model that knows when its weights are not to take the place of those that were saved."""

    @property
    def in_doubt(self) -> bool:
        """Whether several steps in a row were skipped because they were not finite."""


class WayBack(Protocol):
    """What training changed in a model's LLM, of which a share can be undone in place."""

    def apply(self, alpha: float = 1.0) -> None:
        """Sets the weights to this share: 0 gives the untouched LLM, 1 the tuned one, both exactly."""


@runtime_checkable
class WeighsTerms(Protocol):
    """The terms of a model's loss, whose factors may be set between two optimizer steps."""

    @property
    def weights(self) -> dict[str, float]:
        """The factor of each term by its name, what is learned first."""

    def set_weight(self, name: str, weight: float) -> None:
        """Sets the factor of a term, from the next step on; every rank must set the same."""
