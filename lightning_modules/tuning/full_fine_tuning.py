"""Everything in the LLM trains."""

from __future__ import annotations

from torch import nn

from .masks import WeightMask
from .rates import LayerRates
from .tuning import ParameterGroup, trainable
from .weight_tuning import WeightTuning


class FullFineTuning(WeightTuning):
    """Adaptor and all LLM parameters train (LLaMA-Omni's stage 1, arXiv 2409.06666; "Full-FT" of arXiv 2509.23755).

    Args:
        adaptor_lr: Learning rate of the adaptor; ``None`` takes the optimizer's own, as LLaMA-Omni does.
        train_encoder: Train the speech encoder too, at the optimizer's rate. Frozen by default, as in LLaMA-Omni.
        rates: Layer-wise learning rates ("Layer-LR" of arXiv 2509.23755); without it, every layer uses the optimizer's
            rate.
        protect: Single weights to keep fixed, including against weight decay and momentum.
    """

    def __init__(
        self,
        adaptor_lr: float | None = None,
        train_encoder: bool = False,
        rates: LayerRates | None = None,
        protect: WeightMask | None = None,
    ) -> None:
        super().__init__(adaptor_lr, rates, protect)
        self.train_encoder = train_encoder

    def prepare(self, llm: nn.Module, encoder: nn.Module, adaptor: nn.Module) -> None:
        """Unfreezes LLM and adaptor, and the encoder on request."""
        llm.requires_grad_(True)
        adaptor.requires_grad_(True)
        encoder.requires_grad_(self.train_encoder)

    def parameter_groups(self, llm: nn.Module, encoder: nn.Module, adaptor: nn.Module) -> list[ParameterGroup]:
        """Builds the groups of :class:`WeightTuning`, and one for the encoder if it trains."""
        groups = super().parameter_groups(llm, encoder, adaptor)
        if self.train_encoder:
            groups.append(ParameterGroup("encoder", trainable(encoder)))
        return groups
