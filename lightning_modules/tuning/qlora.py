"""LoRA over a base model in four bits."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn
from transformers import BitsAndBytesConfig

from .layer_ranks import LayerRanks
from .lora import LoRA
from .lora_starts import AdapterStart
from .rates import LayerRates
from .speech_gate import SpeechGate


class QLoRA(LoRA):
    """LoRA over weights stored in four bits (arXiv 2305.14314), by bitsandbytes and peft.

    NF4 with doubly quantised constants, bfloat16 products: an 8B model takes about 6 GB instead of 16. The four-bit
    model counts as the untouched one, to which distillation and forgetting refer. LoRA is not merged into it, which
    would round the update to four bits. The importance of a packed weight cannot be measured.

    Args:
        r: Rank; it and what follows are the settings of :class:`LoRA`.
        alpha: ``s = alpha / r``; ``None`` takes 2r.
        dropout: On the inputs of A, while training.
        targets: Names of the matrices; ``None`` takes all dense layers of the decoder blocks.
        use_dora: Learn the length of each row of the weight separately from its direction.
        use_rslora: ``s = alpha / sqrt(r)``.
        start: What A and B begin with; none that is a part of the weight (``PiSSA``, ``OLoRA``).
        gate: Where the update acts; everywhere without.
        ranks: Another rank for each decoder layer, with the mean ``r``.
        rates: Layer-wise learning rates of the low-rank matrices.
        adaptor_lr: Learning rate of the adaptor; ``None`` takes the optimizer's own.
        parts: What gets LoRA; only the LLM is in four bits.

    Raises:
        ValueError: Without bitsandbytes or a CUDA device, and for settings that need the weights themselves.
    """

    def __init__(
        self,
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
        if find_spec("bitsandbytes") is None:
            raise ValueError("QLoRA needs bitsandbytes: pip install 'textkeep[qlora]'; without it take LoRA")
        if not torch.cuda.is_available():
            raise ValueError("QLoRA needs a CUDA device, and there is none here; take LoRA")
        if self.lora_start is not None and self.lora_start.moves:
            raise ValueError(
                f"QLoRA: {type(self.lora_start).__name__} begins with a part of the weight, which four bits have "
                "rounded; leave out one"
            )
        self.mergeable = False

    def loading_options(self) -> dict[str, Any]:
        """Requests four bits, as bitsandbytes and transformers document it."""
        config = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
        return {"quantization_config": config}

    def prepare(self, llm: nn.Module, encoder: nn.Module, adaptor: nn.Module) -> None:
        """Prepares as LoRA does, after peft's own preparation: norms and embeddings in float32, all frozen."""
        from peft import prepare_model_for_kbit_training

        prepare_model_for_kbit_training(llm, use_gradient_checkpointing=False)  # SpeechLLM enables that itself
        super().prepare(llm, encoder, adaptor)
