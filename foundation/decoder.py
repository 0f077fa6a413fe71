"""The anatomy of a decoder, found by structure: its blocks, the kinds of its matrices, names without wrappers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

_WRAPPERS = re.compile(
    r"(^|(?<=\.))(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.|^module\.|^base_model\.model\."
)


KIND_NAMES: dict[str, tuple[str, ...]] = {
    "q": ("q_proj", "wq", "query", "q_lin", "to_q"),
    "k": ("k_proj", "wk", "key", "k_lin", "to_k"),
    "v": ("v_proj", "wv", "value", "v_lin", "to_v"),
    "o": ("o_proj", "wo", "out_proj", "to_out"),
    "gate": ("gate_proj", "w1"),
    "up": ("up_proj", "w3", "fc1", "fc_in", "dense_h_to_4h"),
    "down": ("down_proj", "w2", "fc2", "fc_out", "dense_4h_to_h"),
    "qkv": ("qkv_proj", "query_key_value", "c_attn", "Wqkv"),
    "gate_up": ("gate_up_proj",),
}
_KIND_OF = {name: kind for kind, names in KIND_NAMES.items() for name in names}


def is_dense(module: nn.Module) -> bool:
    """Returns whether ``module`` is one dense matrix: ``nn.Linear``, or transformers' ``Conv1D`` (transposed)."""
    return isinstance(module, nn.Linear) or is_transposed(module)


def is_transposed(module: nn.Module) -> bool:
    """Returns whether the weight is stored (in, out), as GPT-2's ``Conv1D`` does; by structure, not by import."""
    weight = getattr(module, "weight", None)
    return type(module).__name__ == "Conv1D" and hasattr(module, "nf") and isinstance(weight, Tensor)


def kind_of(path: str) -> str:
    """Names the kind of a matrix: ``q k v o gate up down`` if recognised, else its path inside the decoder block."""
    return _KIND_OF.get(path.rsplit(".", 1)[-1], path)


def clean_name(name: str) -> str:
    """Removes the prefixes of compilers, DDP, FSDP and peft from a parameter's name."""
    return _WRAPPERS.sub("", name)


def find_blocks(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """Finds the decoder blocks: the outermost module list with dense layers that holds most of the weights.

    The blocks may be of several classes, as in hybrids of attention and state space layers. Fused experts count as
    well: otherwise a tower beside a mixture of experts could be taken for the decoder.

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
            f"no decoder layers found in {type(model).__name__}: expected an nn.ModuleList with Linear layers"
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


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """Returns only the decoder blocks, the layers whose importance is measured, for rates, masks and LoRA.

    Raises:
        ValueError: If the model holds no list of blocks with dense layers.
    """
    return find_blocks(model)[1]


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Sets eval mode within the context, and restores each module's mode afterwards.

    ``model.train()`` would switch on what a tuning keeps in eval mode.
    """
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
