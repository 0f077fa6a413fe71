"""The decoder blocks of a model, found by structure, and the names of its parameters without wrappers."""

from __future__ import annotations

import re
from collections.abc import Iterator

from torch import nn

from .weights import is_dense

_WRAPPERS = re.compile(
    r"(^|(?<=\.))(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.|^module\.|^base_model\.model\."
)


def clean_name(name: str) -> str:
    """A parameter's name without the prefixes of compilers, DDP, FSDP and peft."""
    return _WRAPPERS.sub("", name)


def find_blocks(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """The decoder blocks: the outermost module list with dense layers that holds most of the weights.

    The blocks may be of several classes, as in hybrids of attention and state space layers. Experts count, though they
    are fused: else a tower beside a mixture of experts could be taken for the decoder.

    Raises:
        ValueError: If there is no module list with dense layers inside.
    """
    best: tuple[int, str, nn.ModuleList] | None = None
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList):
            size = sum(p.numel() for p in module.parameters()) if any(map(is_dense, module.modules())) else 0
            if size and (best is None or size > best[0]):  # an inner list is never larger than its outer one
                best = (size, name, module)
    if best is None:
        raise ValueError(
            f"importance: no decoder blocks in {type(model).__name__}: expected an nn.ModuleList with Linear layers"
        )
    return best[1], best[2]


def other_stacks(model: nn.Module, blocks: nn.ModuleList) -> Iterator[tuple[str, nn.Parameter]]:
    """Matrices in module lists beside the blocks: a second stack, a predictor of further tokens."""
    inside = {id(m) for m in blocks.modules()}
    for prefix, stack in model.named_modules():
        if isinstance(stack, nn.ModuleList) and id(stack) not in inside:
            for path, module in stack.named_modules():
                if is_dense(module) and id(module) not in inside and isinstance(module.weight, nn.Parameter):
                    yield clean_name(f"{prefix}.{path}.weight"), module.weight
