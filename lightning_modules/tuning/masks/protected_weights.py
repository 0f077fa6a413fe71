"""Single weights that an optimizer step leaves unchanged."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ....foundation.sharding import own_part, part_of


class ProtectedWeights:
    """Keeps chosen entries of parameters bit for bit, whatever the optimizer does.

    Their gradient is zeroed before clipping, so that they neither count in the norm nor enter momentum. What the
    optimizer would still do to them (weight decay) is undone: their values are saved before its step and restored after
    it. This takes 4 bytes per protected weight on the device, and as many again during the step for float32 weights.

    Args:
        llm: The model.
        bits: Parameter name -> packed bits of its flattened (out, in) mask.

    Raises:
        ValueError: If a mask does not match its parameter, or none of the parameters trains.
    """

    def __init__(self, llm: nn.Module, bits: Mapping[str, Tensor]) -> None:
        parameters = dict(llm.named_parameters(remove_duplicate=False))
        missing = next((name for name in bits if name not in parameters), None)
        if missing is not None:
            raise ValueError(f"protect: the mask is of another model, the LLM has no parameter '{missing}'")
        self._entries = [
            (parameters[name], _positions(llm, name, parameters[name], packed))
            for name, packed in bits.items()
            if parameters[name].requires_grad
        ]
        if not self._entries:
            raise ValueError("protect: none of the masked weights trains, so there is nothing to protect them from")
        self._kept: list[Tensor] = []

    def __len__(self) -> int:
        return sum(len(positions) for _, positions in self._entries)

    def zero_gradients(self) -> None:
        """Zeroes the gradient of the protected entries; to be called before clipping."""
        for parameter, positions in self._entries:
            if parameter.grad is not None:
                own_part(parameter.grad).view(-1).index_fill_(0, positions.long(), 0.0)

    @torch.no_grad()
    def put_aside(self) -> None:
        """Copies the protected values; to be called before the optimizer's step."""
        self._kept = [own_part(weight).view(-1).index_select(0, positions) for weight, positions in self._entries]

    @torch.no_grad()
    def put_back(self) -> None:
        """Writes the protected values back; to be called after the step."""
        for (parameter, positions), values in zip(self._entries, self._kept, strict=True):
            own_part(parameter).view(-1).index_copy_(0, positions.long(), values)
        self._kept = []


def _positions(llm: nn.Module, name: str, parameter: nn.Parameter, packed: Tensor) -> Tensor:
    """Finds the positions of the set bits in the flattened parameter, or this rank's part, int32, on its device."""
    size = parameter.numel()
    if len(packed) != (size + 7) // 8:
        raise ValueError(f"protect: the mask of '{name}' is not of its shape {tuple(parameter.shape)}")
    shifts = torch.arange(7, -1, -1, dtype=torch.uint8)
    mask = (packed[:, None] >> shifts & 1).view(-1)[:size].bool()
    if isinstance(llm.get_submodule(name.rpartition(".")[0]), Conv1D):  # stored (in, out)
        mask = mask.view(parameter.shape[::-1]).T.reshape(-1)
    own = part_of(mask.view(parameter.shape), parameter).view(-1)
    return own.nonzero().flatten().to(torch.int32)
