"""Runs code on tensors without data: what it would compute is counted in bytes and operations, and nothing is computed.

Weights and activations are torch's FakeTensors. What decides the shapes of a step, the token ids, labels, masks and
lengths of a batch, is small and keeps its values: so the very code of training runs, with its masks and its choice of
answer positions, where FakeTensors alone would refuse shapes that depend on data.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._guards import active_fake_mode
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.distributed.tensor import DTensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from .meter import Meter

ATEN = torch.ops.aten
SMALL = (torch.int64, torch.int32, torch.uint8, torch.bool)
"""Types of the tensors that keep their values."""
VALUE = 1.0
"""What a number that would have to be computed is taken to be: finite, and true."""


def _attention(query: Tensor, key: Tensor, value: Tensor, *more: Any, **options: Any) -> int:
    return sdpa_flop_count(query.shape, key.shape, value.shape)


def _attention_backward(gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, *more: Any, **options: Any) -> int:
    return sdpa_backward_flop_count(gradient.shape, query.shape, key.shape, value.shape)


OPERATIONS: dict[Any, Callable[..., int]] = {
    **flop_registry,
    # torch knows the kernels of GPUs alone
    ATEN._scaled_dot_product_flash_attention_for_cpu: _attention,
    ATEN._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}
"""Operator -> its floating-point operations; FlopCounterMode has hooks that keep what checkpointing recomputes."""


class _SiLU(torch.autograd.Function):
    """SiLU as its kernel computes it: without data, torch splits its backward pass into parts that need more memory."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        ctx.save_for_backward(values)
        return torch.empty_like(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return torch.empty_like(*ctx.saved_tensors)


def _silu(values: Tensor, inplace: bool = False) -> Tensor:
    return _SiLU.apply(values)


@contextmanager
def exchanged(owner: Any, name: str, other: Any) -> Iterator[None]:
    """Replaces one of torch's functions within the context."""
    before = getattr(owner, name)
    setattr(owner, name, other)
    try:
        yield
    finally:
        setattr(owner, name, before)


class Bookkeeping(TorchDispatchMode):
    """Computes what only small tensors of whole numbers go into, leaves the rest to FakeTensors, and counts both.

    Args:
        meter: Counts what operators return.
        faking: The mode of the tensors that count; DTensor asks in another one for shapes alone.
    """

    def __init__(self, meter: Meter, faking: FakeTensorMode) -> None:
        super().__init__()
        self.meter, self.faking = meter, faking

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs an operator, really or not."""
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented  # it comes back with this rank's part
        kwargs = kwargs or {}
        if active_fake_mode() is not self.faking:
            return func(*args, **kwargs)
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        faked = any(isinstance(tensor, FakeTensor) for tensor in tensors)
        if func is ATEN._local_scalar_dense.default and faked:
            return VALUE
        if not faked and (bool(tensors) or _whole(func, args, kwargs)):
            with unset_fake_temporarily():
                result = func(*args, **kwargs)
        else:
            if func is ATEN.index.Tensor:
                args = (args[0], _places(args[1]), *args[2:])
            result = func(*args, **kwargs)
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self.meter.count(leaf)
        if (formula := OPERATIONS.get(func.overloadpacket)) is not None:
            self.meter.flops += formula(*args, **kwargs, out_val=result)
        return result


def _whole(func: Any, args: Any, kwargs: dict[str, Any]) -> bool:
    """Tells whether an operator that takes no tensors creates one of integers."""
    dtype = kwargs.get("dtype")
    if dtype is None and func.overloadpacket is ATEN.arange:
        return all(isinstance(value, int) for value in args)
    return dtype in SMALL


def _places(indices: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Turns masks whose values are known into the places where they are true: how many there are is known then."""
    places: list[Tensor | None] = []
    for index in indices:
        if index is None or isinstance(index, FakeTensor) or index.dtype != torch.bool:
            places.append(index)
            continue
        with unset_fake_temporarily():
            places += index.nonzero(as_tuple=True)
    return places


def _replace(module: nn.Module, change: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    """Does what ``nn.Module._apply`` does (``to``, ``float``), with new parameters where they change.

    torch's own swaps the contents of tensors, and refuses that for FakeTensors, which their mode refers to.
    """
    for child in module.children() if recurse else ():
        _replace(child, change)
    with torch.no_grad():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if (changed := change(parameter)) is not parameter:
                setattr(module, name, nn.Parameter(changed, requires_grad=parameter.requires_grad))
        for name, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, name, change(buffer))
    return module


class Shadow:
    """Lets no tensor of floating-point numbers that is made while it is cast have data; none is computed.

    It is the same FakeTensorMode whenever it is cast: one takes another's tensors for new ones, and counts them again.

    Args:
        meter: Counts their bytes.
    """

    def __init__(self, meter: Meter) -> None:
        self._faking = FakeTensorMode(allow_non_fake_inputs=True)
        self._meter = meter
        really = torch.UntypedStorage.resize_

        def resize(storage: torch.UntypedStorage, size: int) -> None:
            really(storage, size)
            meter.resized(storage)

        self._resize = resize

    @contextmanager
    def cast(self) -> Iterator[None]:
        """Holds while the context lasts."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Accessing the data pointer of FakeTensor")
            converting, activating, resizing = (
                exchanged(nn.Module, "_apply", _replace),
                exchanged(functional, "silu", _silu),
                exchanged(torch.UntypedStorage, "resize_", self._resize),
            )
            with converting, activating, resizing, self._faking, Bookkeeping(self._meter, self._faking):
                yield
