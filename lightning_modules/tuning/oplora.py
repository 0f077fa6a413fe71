"""LoRA that avoids the directions in which the weights are strongest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...importance.subspace import top_subspace
from ..contract import SpeechModel
from ..llm.lora_layers import lora_layers
from ..precision import at_least_float32
from .injection import TRAINED
from .layer_ranks import LayerRanks
from .lora import LoRA
from .lora_starts import AdapterStart
from .rates import LayerRates
from .speech_gate import SpeechGate


class OPLoRA(LoRA):
    r"""LoRA orthogonal to the top k singular directions of each weight (arXiv 2510.13003).

    The update is :math:`(I - U_k U_k^T)\, s B A\, (I - V_k V_k^T)`: the k largest singular triples of W stay exactly
    as they were. A and B themselves are kept in the complement: their gradients are projected before a step and they
    are projected after it. This gives the same updates as the paper's projection in the forward pass, at the cost of
    two small products per step, and keeps plain peft layers, which can be merged, gated and measured.

    U_k and V_k are found before the first step and travel in the checkpoints.

    Args:
        k: Protected directions of each weight.
        r: Rank; this and the following are the settings of :class:`LoRA`.
        alpha: ``s = alpha / r``; ``None`` takes 2r.
        dropout: On the inputs of A, while training.
        targets: Names of the matrices; ``None`` takes all dense layers of the decoder blocks.
        use_dora: Refused: it rescales the protected directions too.
        use_rslora: ``s = alpha / sqrt(r)``.
        start: Initial values of A and B; not one that is part of the weight (``PiSSA``, ``OLoRA``).
        gate: Where the update acts; without it, everywhere.
        ranks: Another rank for each decoder layer, with the mean ``r``.
        rates: Layer-wise learning rates of the low-rank matrices.
        adaptor_lr: Learning rate of the adaptor; ``None`` takes the optimizer's own.
        parts: What gets LoRA; directions are protected in the LLM alone.

    Raises:
        ValueError: For settings that would change the protected directions.
    """

    def __init__(
        self,
        k: int = 16,
        r: int = 8,
        alpha: int | None = None,
        dropout: float = 0.0,
        targets: Sequence[str] | None = None,
        use_dora: bool = False,
        use_rslora: bool = False,
        start: AdapterStart | None = None,
        gate: SpeechGate | None = None,
        ranks: LayerRanks | None = None,
        rates: LayerRates | None = None,
        adaptor_lr: float | None = None,
        parts: dict[str, list[str] | None] | None = None,
    ) -> None:
        super().__init__(r, alpha, dropout, targets, use_dora, use_rslora, start, gate, ranks, rates, adaptor_lr, parts)
        if k < 1:
            raise ValueError(f"OPLoRA: k is {k}, but must be at least 1; without protection take LoRA")
        if self.use_dora:
            raise ValueError("OPLoRA: use_dora rescales the rows of the whole weight, protected directions included")
        if self.lora_start is not None and self.lora_start.moves:
            raise ValueError(
                f"OPLoRA: {type(self.lora_start).__name__} trains what the weight is strongest in, which is what is "
                "protected here; leave out one"
            )
        self.k = k

    def prepare(self, llm: nn.Module, encoder: nn.Module, adaptor: nn.Module) -> None:
        """Prepares as LoRA does, and allocates the protected directions.

        Raises:
            ValueError: If a matrix has no more than ``k`` directions.
        """
        super().prepare(llm, encoder, adaptor)
        for name, layer in lora_layers(llm).items():
            directions = min(layer.in_features, layer.out_features)
            if self.k >= directions:
                raise ValueError(f"OPLoRA: k is {self.k}, but {name} has only {directions} directions")
            up, down = layer.lora_B[TRAINED].weight, layer.lora_A[TRAINED].weight
            for side, size, like in (("left", layer.out_features, up), ("right", layer.in_features, down)):
                layer.register_buffer(f"protected_{side}", at_least_float32(like.new_zeros(size, self.k)))

    def initialize(self, model: SpeechModel) -> list[Tensor]:
        """Finds the protected directions and removes them from A and B."""
        if self._begun:
            return []
        super().initialize(model)
        for layer in lora_layers(model.llm).values():
            left, right = top_subspace(layer.get_base_layer().weight.detach(), self.k)
            layer.protected_left.copy_(left)
            layer.protected_right.copy_(right)
            _project(layer, [p.data for p in _pair(layer)])
        return [
            *(p for layer in lora_layers(model.llm).values() for p in _pair(layer)),
            *self.frozen_to_save(model.llm),
        ]

    def frozen_to_save(self, llm: nn.Module) -> list[Tensor]:
        """Adds the protected directions."""
        layers = lora_layers(llm).values()
        return [
            *super().frozen_to_save(llm),
            *(b for layer in layers for b in (layer.protected_left, layer.protected_right)),
        ]

    def edit_gradients(self, llm: nn.Module) -> None:
        """Removes the protected directions from the gradients of A and B."""
        for layer in lora_layers(llm).values():
            gradients = [parameter.grad for parameter in _pair(layer)]
            if all(gradient is not None for gradient in gradients):
                _project(layer, gradients)  # type: ignore[arg-type]

    def attach_to_optimizer(self, llm: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Projects A and B after each step, since an optimizer that scales single entries leaves the complement."""
        layers = list(lora_layers(llm).values())

        def project(*_: Any) -> None:
            for layer in layers:
                _project(layer, [parameter.data for parameter in _pair(layer)])

        optimizer.register_step_post_hook(project)


def _pair(layer: Any) -> tuple[nn.Parameter, nn.Parameter]:
    return layer.lora_A[TRAINED].weight, layer.lora_B[TRAINED].weight


@torch.no_grad()
def _project(layer: Any, pair: list[Tensor]) -> None:
    """Removes the protected directions from A (r, in) and B (out, r), or from their gradients, in place."""
    down, up = pair
    a, b = at_least_float32(down), at_least_float32(up)
    left, right = layer.protected_left.to(b.dtype), layer.protected_right.to(a.dtype)
    down.copy_(a - (a @ right) @ right.T)
    up.copy_(b - left @ (left.T @ b))
