"""LoRA over a base model in four bits."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch
from torch import nn
from transformers import BitsAndBytesConfig

from .lora import LoRA


class QLoRA(LoRA):
    """LoRA over weights that are stored in four bits (arXiv 2305.14314), by bitsandbytes and peft.

    NF4 with doubly quantised constants, bfloat16 products: an 8B model takes about 6 GB instead of 16. The four-bit
    model is the untouched one: it is what distillation and forgetting refer to. Adapters are not merged into it: that
    would round them to four bits. The importance of a packed weight cannot be measured.

    Args:
        **lora: See :class:`LoRA`; no start that is a part of the weight.

    Raises:
        ValueError: Without bitsandbytes or a CUDA device, and for what needs the weights themselves.
    """

    def __init__(self, **lora: Any) -> None:
        super().__init__(**lora)
        if find_spec("bitsandbytes") is None:
            raise ValueError("QLoRA needs bitsandbytes: pip install 'textkeep[qlora]'; without it take LoRA")
        if not torch.cuda.is_available():
            raise ValueError("QLoRA needs a CUDA device, and there is none here; take LoRA")
        if self.adapter_start is not None and self.adapter_start.moves:
            raise ValueError(
                f"QLoRA: {type(self.adapter_start).__name__} begins with a part of the weight, which four bits have "
                "rounded; leave out one"
            )
        self.mergeable = False

    def loading(self) -> dict[str, Any]:
        """In four bits, as bitsandbytes and transformers document it."""
        config = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
        return {"quantization_config": config}

    def prepare(self, llm: nn.Module, encoder: nn.Module, adaptor: nn.Module) -> None:
        """As LoRA, after peft's own preparation: norms and embeddings in float32, all frozen."""
        from peft import prepare_model_for_kbit_training

        prepare_model_for_kbit_training(llm, use_gradient_checkpointing=False)  # SpeechLLM switches that on itself
        super().prepare(llm, encoder, adaptor)
