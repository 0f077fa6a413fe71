"""Weights that rank zero alone reads from disk: what the others must know of them, and the tensors one by one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import zip_longest

import torch
from torch import Tensor, distributed, nn

from ...foundation.errors import RunError, UserError
from ...foundation.ranks import Ranks
from ..llm.pretrained import read_by_rank_zero


@contextmanager
def one_rank_reads() -> Iterator[None]:
    """Lets the model be built with rank zero alone reading its weights; the others have their shapes.

    Random numbers are drawn on rank zero as in one process. Ranks that came with the same state of the generator leave
    with the same: those without values have drawn others.

    Raises:
        RunError: If another rank could not build it; the rank that could not raises its own error.
    """
    ranks, began, own = Ranks(), torch.get_rng_state(), None
    try:
        with read_by_rank_zero():
            yield
    except Exception as error:  # the others would wait for this rank
        own = error
    told = ranks.gather(None if own is None else f"{type(own).__name__}: {own}")
    if own is not None:
        raise own
    if (other := next(filter(None, told), None)) is not None:
        raise RunError(f"rank {told.index(other)} could not build the model: {other}")
    before, after = ranks.gather((began, torch.get_rng_state()) if ranks.rank == 0 else None)[0]
    if torch.equal(began, before):
        torch.set_rng_state(after)


class ReadTensors:
    """The tensors of a module that rank zero has read, to be given to all ranks part by part.

    Args:
        root: Built alike on all ranks: with values on rank zero, with or without them on the others.
        towers: Parts of it whose layers may keep constants beside parameters and buffers.
        device: Where the tensors are to lie.

    Raises:
        UserError: If the ranks have built other tensors.
    """

    def __init__(self, root: nn.Module, towers: Iterable[nn.Module], device: torch.device) -> None:
        self._device = device
        self._places: dict[int, tuple[Tensor, list[tuple[nn.Module, str]]]] = {}
        constants = {id(module) for tower in towers for module in tower.modules()}
        found = []
        for path, module in root.named_modules():
            for name, value in _own_tensors(module, id(module) in constants):
                self._places.setdefault(id(value), (value, []))[1].append((module, name))
                found.append((f"{path}.{name}", tuple(value.shape), str(value.dtype)))
        _check_alike(found)

    def give(self, module: nn.Module) -> None:
        """Gives all ranks the values that a module's tensors have on rank zero; those that were given are left alone.

        A tensor that several layers share stays one.
        """
        for part in module.modules():
            for _, value in list(_own_tensors(part, True)):
                self._give(value)

    def _give(self, value: Tensor) -> None:
        _, places = self._places.pop(id(value), (None, []))
        if not places:
            return
        whole = _from_rank_zero(value.detach(), self._device)
        given = nn.Parameter(whole, value.requires_grad) if isinstance(value, nn.Parameter) else whole
        for owner, name in places:
            setattr(owner, name, given)


def _own_tensors(module: nn.Module, constants: bool) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters(recurse=False, remove_duplicate=False)
    yield from module.named_buffers(recurse=False, remove_duplicate=False)
    if constants:
        yield from ((name, value) for name, value in vars(module).items() if isinstance(value, Tensor))


def _from_rank_zero(tensor: Tensor, device: torch.device) -> Tensor:
    """Broadcasts a tensor of any type as bytes; its values are asked for on rank zero alone."""
    if Ranks().rank == 0:
        whole = tensor.to(device).contiguous()
    else:
        whole = torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
    if whole.numel():
        distributed.broadcast(whole.view(-1).view(torch.uint8), src=0)
    return whole


def _check_alike(found: list[tuple[str, tuple[int, ...], str]]) -> None:
    ranks = Ranks()
    first = ranks.gather(found if ranks.rank == 0 else None)[0]
    pairs = zip_longest(first, found, fillvalue=("nothing", (), ""))
    odd = next((f"{_shown(here)} and {_shown(there)} on rank zero" for there, here in pairs if there != here), None)
    told = ranks.gather(odd)
    if (other := next(filter(None, told), None)) is not None:
        raise UserError(f"FSDP2: the ranks have built other models: rank {told.index(other)} has {other}")


def _shown(tensor: tuple[str, tuple[int, ...], str]) -> str:
    return " ".join(map(str, tensor)).strip()
