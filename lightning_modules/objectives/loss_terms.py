"""Objectives and penalties as one loss."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from ..contract import Batch, SpeechModel
from .loss_term import LossTerm
from .objective import Objective
from .penalty import Penalty


class Total(NamedTuple):
    """The total loss of a training step.

    Attributes:
        loss: Weighted sum of the objectives' sums (scalar, with gradient).
        tokens: Number of tokens of the first objective, by which the step will be divided.
        penalty: Weighted sum of the penalties' values (scalar, without gradient), not divided by anything.
        values: Name of a term -> an objective's mean per token or a penalty's value, without gradient; also the
            objectives' further figures.
    """

    loss: Tensor
    tokens: Tensor
    penalty: Tensor
    values: dict[str, Tensor]

    @property
    def mean(self) -> Tensor:
        """Loss of the batch: the mean per token, and the penalties (scalar, without gradient)."""
        return self.loss.detach() / self.tokens.clamp(min=1) + self.penalty


class LossTerms(nn.ModuleList):
    """The terms of a model's loss, in the order of its config; :class:`LossTerm` each."""

    @property
    def over_tokens(self) -> list[Objective]:
        """The sums over tokens."""
        return [term for term in self if isinstance(term, Objective)]

    @property
    def penalties(self) -> list[Penalty]:
        """The functions of the weights."""
        return [term for term in self if isinstance(term, Penalty)]

    @property
    def weights(self) -> dict[str, float]:
        """The factor of each term in the total, by its name; the first one's tokens divide the others' sums."""
        return {term.name: term.weight for term in cast(list[LossTerm], list(self))}

    def set_weight(self, name: str, weight: float) -> None:
        """Sets the factor of a term from the next step on (:meth:`LossTerm.set_weight`).

        Raises:
            KeyError: If there is no term of this name.
        """
        {term.name: term for term in cast(list[LossTerm], list(self))}[name].set_weight(weight)

    def build(self, model: SpeechModel) -> None:
        """Lets each term build what depends on the model's weights."""
        for term in self:
            cast(LossTerm, term).build(model)

    def start(self, model: SpeechModel) -> None:
        """Lets each term prepare for a fit."""
        for term in self:
            cast(LossTerm, term).start(model)

    def total(self, model: SpeechModel, batch: Batch) -> Total:
        """Runs all objectives on a batch, and takes the value of all penalties."""
        losses: list[Tensor] = []
        counts: list[Tensor] = []
        values: dict[str, Tensor] = {}
        for objective in self.over_tokens:
            loss, tokens = objective(model, batch)
            counts.append(tokens)
            losses.append(loss * objective.weight)
            values[objective.name] = loss.detach() / tokens.clamp(min=1)
            values |= {f"{objective.name}_{key}": figure.float() for key, figure in objective.figures.items()}
        penalty = torch.zeros((), device=counts[0].device)
        for term in self.penalties:
            values[term.name] = term.value(model)
            penalty = penalty + term.weight * values[term.name]
        return Total(torch.stack(losses).sum(), counts[0], penalty, values)

    def add_penalty_gradients(self, model: SpeechModel) -> None:
        """Adds the penalties' gradients to those of an optimizer step, once these are normalised."""
        for penalty in self.penalties:
            penalty.add_gradient(model)
