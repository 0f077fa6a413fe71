"""What strategies share that train the LLM's own weights."""

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
        rates: Layer-wise learning rates ("Layer-LR" of arXiv 2509.23755); every layer at the optimizer's rate without.
        protect: Single weights that do not move, weight decay and momentum included.
    """

    _protected: ProtectedWeights | None = None

    def __init__(
        self, adaptor_lr: float | None = None, rates: LayerRates | None = None, protect: WeightMask | None = None
    ) -> None:
        self.adaptor_lr = adaptor_lr
        self.rates = rates
        self.protect = protect

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out what refers to a model: hyperparameters are pickled into the checkpoints of Python users."""
        return {name: value for name, value in vars(self).items() if name != "_protected"}

    def needs_whole(self) -> str | None:
        """Names nothing: rates are of groups, and each rank keeps the protected weights of its part."""
        return None

    def parameter_groups(self, llm: nn.Module, encoder: nn.Module, adaptor: nn.Module) -> list[ParameterGroup]:
        """Makes a group of the adaptor, one of each decoder layer that trains, and one of the rest of the LLM."""
        layers = llm_groups(llm, self.multipliers(llm))
        return [ParameterGroup("adaptor", trainable(adaptor), self.adaptor_lr), *layers]

    def importance_users(self) -> dict[str, ImportanceUser]:
        """Names the rates and the mask."""
        protect: dict[str, ImportanceUser] = {} if self.protect is None else {"protect": self.protect}
        return {**super().importance_users(), **protect}

    def attach_to_optimizer(self, llm: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Undoes what a step does to protected weights."""
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
        """Builds it at the first step, where the mask was measured after the optimizer had been made."""
        if self._protected is None:
            self._protected = ProtectedWeights(llm, mask.bits(llm))
        return self._protected
