"""A measurement leaves no trace: modes, gradients, RNG and ``requires_grad`` are restored, even after an error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from ..foundation.ranks import is_sharded


def unwrap(model: nn.Module) -> nn.Module:
    """Removes ``torch.compile`` and DDP wrappers. FSDP wrappers stay: they gather the weights."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


@contextmanager
def evaluation_flags(model: nn.Module) -> Iterator[None]:
    """Switches to eval mode, except layers that checkpoint: they would stop, and memory would explode.

    The exact map of training flags is restored (``model.train()`` would switch frozen parts on). A checkpointing layer
    that calls dropout itself (OPT, BART) keeps ``training`` set, so its dropout rates are zeroed in the meantime.
    """
    flags = {module: module.training for module in model.modules()}
    rates: list[tuple[nn.Module, str, float]] = []
    try:
        for module in flags:
            checkpoints = bool(getattr(module, "gradient_checkpointing", False)) and hasattr(
                module, "_gradient_checkpointing_func"
            )
            module.training = checkpoints
            if checkpoints:
                rates += [(module, k, v) for k, v in vars(module).items() if "drop" in k and type(v) is float]
        for module, key, _ in rates:
            setattr(module, key, 0.0)
        yield
    finally:
        for module, key, rate in rates:
            setattr(module, key, rate)
        for module, flag in flags.items():
            module.training = flag


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Freezes every parameter: ``.grad``, reducers, scalers and optimisers see nothing of the backward pass."""
    trained = [p for p in model.parameters() if p.requires_grad]
    divided = is_sharded(model)
    try:
        for parameter in trained:
            parameter.requires_grad_(False)
        yield
    finally:
        if divided:  # otherwise the code that gathered the weights may still need them
            _reshard(model)
        for parameter in trained:
            parameter.requires_grad_(True)


def _reshard(model: nn.Module) -> None:
    """Restores FSDP2's shards: after a pass without a backward, its root still holds whole, frozen weights."""
    for module in model.modules():
        reshard = getattr(module, "reshard", None)
        if callable(reshard):
            reshard()


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Sets up everything a measurement needs: gradients on, inference mode off, eval flags, forked RNG."""
    cuda = sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(torch.random.fork_rng(devices=cuda))
        stack.enter_context(evaluation_flags(model))
        yield


@contextmanager
def differentiable_embeddings(model: nn.Module) -> Iterator[None]:
    """Makes embedding outputs require a gradient, so that the backward pass reaches the frozen first layers."""

    def require(module: nn.Module, args: Any, output: Any) -> Any:
        if not isinstance(output, torch.Tensor) or output.requires_grad or not torch.is_grad_enabled():
            return output
        return output.requires_grad_().clone()  # some families scale it in place, which a leaf does not allow

    handles = [m.register_forward_hook(require) for m in model.modules() if isinstance(m, nn.Embedding)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
