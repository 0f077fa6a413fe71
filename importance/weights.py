"""The weight whose importance is measured: plain, transposed (Conv1D), sharded, or base + adapter under LoRA."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..foundation.decoder import is_dense, is_transposed


def is_lora(module: nn.Module) -> bool:
    """Returns whether ``module`` wraps a dense layer with low-rank adapters, as peft's ``LoraLayer`` does."""
    has_parts = all(hasattr(module, name) for name in ("base_layer", "lora_A", "lora_B", "get_delta_weight"))
    return has_parts and is_dense(module.base_layer)  # type: ignore[arg-type]


def base_module(module: nn.Module) -> nn.Module:
    """Unwraps a LoRA wrapper and returns the dense layer itself."""
    base = module.base_layer if is_lora(module) else module
    assert isinstance(base, nn.Module)
    return base


def refusal(module: nn.Module) -> str | None:
    """Says why the weight of a dense layer cannot be scored, or ``None`` if it can."""
    base = base_module(module)
    weight = base.weight
    assert isinstance(weight, Tensor)
    if weight.dim() != 2 or not weight.is_floating_point():
        return "quantised or packed weight"
    if is_lora(module):
        adapter: Any = module
        if any(adapter.lora_bias.get(name) for name in adapter.active_adapters):
            return "LoRA with a bias of its own"
        variants = [name for name in adapter.active_adapters if name in adapter.lora_variant]
        if variants and (_magnitude(adapter) is None or len(adapter.active_adapters) > 1):
            return "LoRA variant whose effective weight is neither W + sBA nor DoRA's"
    return None


def outermost_weights(block: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Finds dense layers and LoRA wrappers, but not the modules inside a wrapper."""
    wrapped: list[str] = []
    for path, module in block.named_modules():
        if any(path.startswith(f"{outer}.") for outer in wrapped):
            continue
        if is_lora(module):
            wrapped.append(path)
            yield path, module
        elif is_dense(module):
            yield path, module


@torch.no_grad()
def effective_weight(module: nn.Module, switched_off_too: bool = False) -> Tensor:
    """Forms the effective weight (out, in) of the forward pass: ``W``, or ``W + sum_k s_k B_k A_k`` in LoRA.

    Under DoRA (arXiv 2402.09353, equation 5) the rows of that sum have the learned lengths.

    The gradient with respect to this effective weight is exactly what taps on the wrapper's input and output see, so a
    score of a LoRA-tuned model can be compared with the base model's, entry by entry.

    Where adapters act the sum is formed at least in float32: bfloat16 would round most of ``sBA`` away.

    Args:
        module: A dense layer or a LoRA wrapper around one.
        switched_off_too: Also count adapters that are switched off.
    """
    base = base_module(module)
    weight = base.weight
    assert isinstance(weight, Tensor)
    weight = whole(weight.detach())
    lengths = None
    if is_lora(module):
        adapter: Any = module
        if (switched_off_too or not adapter.disable_adapters) and not adapter.merged:
            for name in adapter.active_adapters:
                if name in adapter.lora_A:
                    weight = weight.to(torch.promote_types(weight.dtype, torch.float32))
                    weight = weight + adapter_part(adapter, name)
            lengths = _magnitude(adapter)
    weight = weight.T if is_transposed(base) else weight
    return weight if lengths is None else weight * (lengths / weight.norm(dim=1))[:, None]


def effective_shape(module: nn.Module) -> tuple[int, int]:
    """Returns the shape (out, in) of a dense layer, without forming a merged weight."""
    base = base_module(module)
    rows, columns = base.weight.shape  # type: ignore[misc]
    return (int(rows), int(columns)) if isinstance(base, nn.Linear) else (int(columns), int(rows))


@torch.no_grad()
def adapter_part(adapter: Any, name: str) -> Tensor:
    """Forms ``s B A`` of one LoRA adapter, laid out as the layer's weight is stored, at least in float32.

    peft's ``get_delta_weight`` rounds it to the adapter's type.
    """
    down, up = adapter.lora_A[name].weight.detach(), adapter.lora_B[name].weight.detach()
    dtype = torch.promote_types(up.dtype, torch.float32)
    part = (up.to(dtype) @ down.to(dtype)) * adapter.scaling[name]
    return part.T if adapter.fan_in_fan_out else part


def _magnitude(adapter: Any) -> Tensor | None:
    """Returns DoRA's learned row lengths (out,), if the active LoRA has them."""
    for name in adapter.active_adapters:
        if name in adapter.lora_magnitude_vector:
            return adapter.lora_magnitude_vector[name].weight.detach()
    return None


def bias_of(module: nn.Module) -> Tensor | None:
    """Returns the bias that the layer adds to its output, or ``None``."""
    bias = getattr(base_module(module), "bias", None)
    return whole(bias.detach()) if isinstance(bias, Tensor) else None


def whole(tensor: Tensor) -> Tensor:
    """Gathers a tensor that FSDP2 has sharded; others pass unchanged."""
    gather = getattr(tensor, "full_tensor", None)
    return gather() if gather is not None else tensor
