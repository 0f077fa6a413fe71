"""Everything in the LLM moves."""

from __future__ import annotations

from torch import nn

from .rates import LayerRates
from .tuning import ParameterGroup, Tuning, llm_groups, trainable


class FullFineTuning(Tuning):
    """Adaptor and all LLM parameters train (LLaMA-Omni's stage 1, arXiv 2409.06666; "Full-FT" of arXiv 2509.23755).

    Args:
        adaptor_lr: Learning rate of the adaptor; ``None`` takes the optimizer's own, as LLaMA-Omni does.
        train_encoder: Train the speech encoder too, at the optimizer's rate. Frozen by default, as in LLaMA-Omni.
        rates: Layer-wise learning rates ("Layer-LR" of arXiv 2509.23755); every layer at the optimizer's rate without.
    """

    def __init__(
        self, adaptor_lr: float | None = None, train_encoder: bool = False, rates: LayerRates | None = None
    ) -> None:
        self.adaptor_lr = adaptor_lr
        self.train_encoder = train_encoder
        self.rates = rates

    def prepare(self, llm: nn.Module, encoder: nn.Module, adaptor: nn.Module) -> None:
        """Unfreezes LLM and adaptor, and the encoder if asked."""
        llm.requires_grad_(True)
        adaptor.requires_grad_(True)
        encoder.requires_grad_(self.train_encoder)

    def parameter_groups(self, llm: nn.Module, encoder: nn.Module, adaptor: nn.Module) -> list[ParameterGroup]:
        """A group for the adaptor, one for each decoder layer, one for the rest."""
        layers = llm_groups(llm, self.multipliers(llm))
        groups = [ParameterGroup("adaptor", trainable(adaptor), self.adaptor_lr), *layers]
        if self.train_encoder:
            groups.append(ParameterGroup("encoder", trainable(encoder)))
        return groups
