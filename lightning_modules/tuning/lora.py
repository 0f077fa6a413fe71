"""Low-rank adapters on the LLM, through peft."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from peft import LoraConfig
from torch import Tensor, nn

from ..adapters import adapter_layers
from .injection import inject, linears, switched_off
from .rates import LayerRates
from .speech_gate import SpeechGate
from .tuning import ParameterGroup, Tuning, llm_groups, trainable


class LoRA(Tuning):
    """The LLM's weights stay; each decoder matrix gets a low-rank update, ``W + s B A`` (arXiv 2106.09685), by peft.

    The paper (arXiv 2509.23755) takes all seven matrices of a layer, r = 8 for 1B and 16 for 8B, and alpha = 2r. The
    adaptor trains too. At first B is zero: the model starts as the untouched LLM.

    Args:
        r: Rank.
        alpha: Scale of the update: ``s = alpha / r``; ``None`` takes 2r.
        dropout: On the adapters' inputs, while training.
        targets: Names of the matrices (``q_proj``, ...); ``None`` takes all dense layers of the decoder blocks.
        use_dora: Learn the length of each row of the weight apart from its direction (DoRA, arXiv 2402.09353).
        use_rslora: ``s = alpha / sqrt(r)`` (rank-stabilised, arXiv 2312.03732), for ranks of 32 and more.
        gate: Where the update acts; everywhere without.
        rates: Layer-wise learning rates of the adapters.
        adaptor_lr: Learning rate of the adaptor; ``None`` takes the optimizer's own.

    Raises:
        ValueError: For values out of range, and for DoRA behind a gate.
    """

    moves_base_weights = False

    def __init__(
        self,
        r: int = 8,
        alpha: int | None = None,
        dropout: float = 0.0,
        targets: Sequence[str] | None = None,
        use_dora: bool = False,
        use_rslora: bool = False,
        gate: SpeechGate | None = None,
        rates: LayerRates | None = None,
        adaptor_lr: float | None = None,
    ) -> None:
        if r < 1 or (alpha is not None and alpha <= 0):
            raise ValueError(f"LoRA: r is {r} and alpha is {alpha}, but both must be positive")
        if not 0 <= dropout < 1:
            raise ValueError(f"LoRA: dropout is {dropout}, but must lie in [0, 1)")
        if use_dora and gate is not None:
            raise ValueError("LoRA: use_dora rescales the weight itself, which a gate cannot take back; leave out one")
        self.r = r
        self.alpha = 2 * r if alpha is None else alpha
        self.dropout = dropout
        self.targets = targets
        self.use_dora = use_dora
        self.use_rslora = use_rslora
        self.gate = gate
        self.rates = rates
        self.mergeable = gate is None
        self.adaptor_lr = adaptor_lr

    def prepare(self, llm: nn.Module, encoder: nn.Module, adaptor: nn.Module) -> None:
        """Freezes the LLM and puts adapters into it."""
        encoder.requires_grad_(False)
        adaptor.requires_grad_(True)
        inject(llm, self.peft_config(llm))
        if self.gate is not None:
            self.gate.install(adapter_layers(llm).values())

    def peft_config(self, llm: nn.Module) -> LoraConfig:
        """What peft is asked for."""
        return LoraConfig(
            r=self.r,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=list(linears(llm, self.targets)),
            bias="none",
            use_dora=self.use_dora,
            use_rslora=self.use_rslora,
        )

    def parameter_groups(self, llm: nn.Module, encoder: nn.Module, adaptor: nn.Module) -> list[ParameterGroup]:
        """A group for the adaptor and one for the adapters of each decoder layer."""
        return [ParameterGroup("adaptor", trainable(adaptor), self.adaptor_lr), *llm_groups(llm, self.multipliers(llm))]

    def reading(self, audio_mask: Tensor) -> AbstractContextManager[None]:
        """The gate, if there is one."""
        return nullcontext() if self.gate is None else self.gate.reading(audio_mask)

    def checkpointing(self) -> dict[str, Any]:
        """The gate of a forward pass holds for its recomputation."""
        return {} if self.gate is None else {"context_fn": self.gate.recomputing}

    def measuring(self, modality: str) -> AbstractContextManager[None] | None:
        """Behind a gate, text meets the base model; speech meets the adapters, if they act as one matrix."""
        if self.gate is None or modality == "text":
            return nullcontext()
        return self.gate.measuring_speech()

    def untouched(self, llm: nn.Module) -> AbstractContextManager[None]:
        """Adapters off."""
        return switched_off(llm)
