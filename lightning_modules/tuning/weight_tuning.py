"""The common base of strategies that train the LLM's own weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from .importance_user import ImportanceUser
from .masks.protected_weights import ProtectedWeights
from .masks.weight_mask import WeightMask
from .rates import LayerRates
from .tuning import ParameterGroup, Tuning, llm_groups, trainable


class WeightTuning(Tuning):
    """Trains weights of the LLM itself, at layer-wise rates, with some of them protected.

    Args:
        adaptor_lr: Learning rate of the adaptor; ``None`` takes the optimizer's own, as LLaMA-Omni does.
        rates: Layer-wise learning rates ("Layer-LR" of arXiv 2509.23755); without it, every layer uses the optimizer's
            rate.
        protect: Single weights to keep fixed, including against weight decay and momentum.
    """

    _protected: ProtectedWeights | None = None

    def __init__(
        self, adaptor_lr: float | None = None, rates: LayerRates | None = None, protect: WeightMask | None = None
    ) -> None:
        self.adaptor_lr = adaptor_lr
        self.rates = rates
        self.protect = protect

    def __getstate__(self) -> dict[str, Any]:
        """Drops references to a model, since hyperparameters are pickled into the checkpoints of Python users."""
        return {name: value for name, value in vars(self).items() if name != "_protected"}

    def needs_whole(self) -> str | None:
        """Names nothing: rates belong to groups, and each rank keeps the protected weights of its part."""
        return None

    def parameter_groups(self, llm: nn.Module, encoder: nn.Module, adaptor: nn.Module) -> list[ParameterGroup]:
        """Builds a group for the adaptor, one for each trained decoder layer, and one for the rest of the LLM."""
        layers = llm_groups(llm, self.multipliers(llm))
        return [ParameterGroup("adaptor", trainable(adaptor), self.adaptor_lr), *layers]

    def importance_users(self) -> dict[str, ImportanceUser]:
        """Names the rates and the mask."""
        protect: dict[str, ImportanceUser] = {} if self.protect is None else {"protect": self.protect}
        return {**super().importance_users(), **protect}

    def attach_to_optimizer(self, llm: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Undoes a step's effect on protected weights."""
        mask = self.protect
        if mask is None:
            return
        self._protected = None if mask.waiting else ProtectedWeights(llm, mask.bits(llm))
        optimizer.register_step_pre_hook(lambda *_: self._protection(llm, mask).put_aside())
        optimizer.register_step_post_hook(lambda *_: self._protection(llm, mask).put_back())

    def edit_gradients(self, llm: nn.Module) -> None:
        """Leaves protected weights without a gradient."""
        if self.protect is not None:
            self._protection(llm, self.protect).zero_gradients()

    def _protection(self, llm: nn.Module, mask: WeightMask) -> ProtectedWeights:
        """Builds it at the first step if the mask was measured after the optimizer was built."""
        if self._protected is None:
            self._protected = ProtectedWeights(llm, mask.bits(llm))
        return self._protected
