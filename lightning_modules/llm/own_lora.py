"""LoRA that an audio LLM came with, to act on sound alone (Granite Speech): taken out of it, or folded in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from .lora_layers import drop_lora, lora_layers


class OwnLoRA(NamedTuple):
    """LoRA of one matrix.

    Attributes:
        layer: The module that has the matrix.
        down: A (r, in).
        up: B (out, r).
        scale: Of B A.
    """

    layer: nn.Module
    down: Tensor
    up: Tensor
    scale: float


def take_own_lora(whole: Any) -> list[OwnLoRA]:
    """Takes the LoRA out of an audio LLM, in place.

    Args:
        whole: As transformers loaded it.

    Raises:
        ValueError: If it is not plain LoRA, one a matrix.
    """
    taken = []
    for name, layer in lora_layers(whole).items():
        adapters = list(layer.active_adapters)
        if len(adapters) != 1 or len(getattr(layer, "lora_A", ())) != 1 or any(layer.use_dora.values()):
            raise ValueError(f"its own LoRA on {name} is not one plain A and B; allowed: OwnEar.own_lora: merge")
        (one,) = adapters
        down, up = (part.weight.detach().clone() for part in (layer.lora_A[one], layer.lora_B[one]))
        taken.append(OwnLoRA(layer.get_base_layer(), down, up, layer.scaling[one]))
    _forget(whole)
    return taken


def merge_own_lora(whole: Any) -> None:
    """Folds the LoRA of an audio LLM into the matrices that it is on, in place: text then meets it too."""
    for layer in lora_layers(whole).values():
        layer.merge(safe_merge=True)
    _forget(whole)


def named_in(llm: nn.Module, taken: Sequence[OwnLoRA]) -> dict[str, OwnLoRA]:
    """Returns LoRA by the names that its matrices have in the text LLM.

    Raises:
        ValueError: If one is on a matrix outside of it.
    """
    names = {id(module): name for name, module in llm.named_modules()}
    if any(id(lora.layer) not in names for lora in taken):
        raise ValueError("its own LoRA is on more than its text LLM; allowed: OwnEar.own_lora: merge")
    return {names[id(lora.layer)]: lora for lora in taken}


def told(brought: Mapping[str, OwnLoRA]) -> str:
    """Returns settings of the LoRA that goes on from this one, as a config has them."""
    first = next(iter(brought.values()))
    r = len(first.down)
    kinds = sorted({name.rpartition(".")[2] for name in brought})
    return f"r: {r}, alpha: {first.scale * r:g}, targets: [{', '.join(kinds)}]"


def _forget(whole: Any) -> None:
    """Takes peft's layers and marks away; a model that never had any stays as it is."""
    if not lora_layers(whole):
        return
    for name in list(getattr(whole, "peft_config", ())):
        whole.delete_adapter(name)
    drop_lora(whole)
    vars(whole).pop("_weight_conversions", None)  # transformers would save under the names that it reads LoRA by
