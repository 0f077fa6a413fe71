"""The common base of penalties on moved weights."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path

import torch
from torch import Tensor, nn

from ...foundation.decoder import clean_name, decoder_layers
from ...foundation.ranks import is_sharded
from ...foundation.sharding import part_of
from ...importance import Snapshot
from ...importance.weights import is_transposed
from ..contract import Need, SpeechModel
from ..llm.pretrained import weights_are_read
from .penalty import Penalty
from .pull import Pull, add_pull, pull_value


class WeightPull(Penalty):
    """1/2 sum_i s_i (theta_i - theta*_i)^2 over weights of the LLM, theta* the untouched LLM's.

    Value and gradient are computed in pieces of 64 MB (``pull``). A copy of the untouched LLM stays in memory for the
    whole fit; distillation shares it. If weights are sharded, each rank keeps its part and the copy is freed.
    """

    needs = (
        Need(
            "moves_base_weights",
            "{owner} draws the LLM's own weights back, but {other} never moves them; "
            "leave {owner} out (TextTwinDistillation and replay act on what the model says)",
        ),
    )

    def __init__(self, weight: float) -> None:
        super().__init__(weight)
        self._pulls: list[Pull] | None = None

    @abstractmethod
    def strengths(self, llm: nn.Module) -> dict[str, Tensor | None]:
        """Returns clean parameter name -> s, in the parameter's shape; None: one everywhere. Unnamed ones are free.

        Raises:
            ValueError: If they do not fit the LLM.
        """

    def start(self, model: SpeechModel) -> None:
        """Finds the weights and their original values.

        Raises:
            ValueError: If the strengths do not fit the LLM, or none of the weights moves.
        """
        name = type(self).__name__
        strengths = self.strengths(model.llm)
        divided = is_sharded(model.llm)
        model.reference.resident |= not divided  # else each rank keeps its part of the anchors, and the copy is freed
        anchors = {clean_name(key): value.detach() for key, value in model.reference.copy().named_parameters()}
        self._pulls = []
        for raw, parameter in model.llm.named_parameters():
            key = clean_name(raw)
            if not parameter.requires_grad or key not in strengths or key not in anchors:
                continue
            strength = strengths[key]
            if strength is not None:
                strength = part_of(strength.to(torch.float32).contiguous(), parameter)
            self._pulls.append(Pull(parameter, part_of(anchors[key], parameter), strength))
        model.reference.release()
        if not self._pulls:
            raise ValueError(f"model.objectives: {name} draws the LLM's own weights back, but none of them is trained")

    def needs_whole(self) -> str | None:
        """Names nothing: each rank pulls its own part of the weights."""
        return None

    def value(self, model: SpeechModel) -> Tensor:
        """Returns 1/2 sum_i s_i (theta_i - theta*_i)^2."""
        if self._pulls is None:
            self.start(model)
        return pull_value(self._pulls or ())

    def add_gradient(self, model: SpeechModel) -> None:
        """Adds weight * s * (theta - theta*), in pieces."""
        add_pull(self._pulls or (), self.weight)


def snapshot_strengths(owner: str, folder: Path, estimator: str, llm: nn.Module) -> dict[str, Tensor]:
    """Returns the score of every single weight of a snapshot, by clean parameter name and in its shape.

    For a model built by shapes only, nothing is read: it returns shapes for the matrices of the decoder blocks.

    Args:
        owner: For messages.
        folder: Of the snapshot.
        estimator: Whose map is read.
        llm: The model that it must match.

    Raises:
        ValueError: If there is no such snapshot or map, or it belongs to another model.
    """
    if not weights_are_read():  # a plan, which may precede the measurement
        matrices = {id(p) for p in decoder_layers(llm).parameters() if p.dim() == 2}
        return {
            clean_name(name): torch.empty_like(parameter, dtype=torch.float32, requires_grad=False)
            for name, parameter in llm.named_parameters()
            if id(parameter) in matrices
        }
    command = f"textkeep importance probe MODEL --data DATA --estimators {estimator} --maps -o {folder}"
    try:
        maps = Snapshot.load(folder).parameters(estimator)
    except FileNotFoundError:
        raise ValueError(f"{owner}.snapshot: no snapshot in {folder}; make one with `{command}`") from None
    except ValueError as error:
        raise ValueError(f"{owner}.snapshot: {folder}: {error}; make one with `{command}`") from None
    owners = {clean_name(path): module for path, module in llm.named_modules()}
    found = {}
    for name, entries in maps.items():
        path, _, kind = clean_name(name).rpartition(".")
        parameter = getattr(owners.get(path), kind, None)
        if not isinstance(parameter, nn.Parameter):
            raise ValueError(f"{owner}.snapshot: {folder} is of another model: the LLM has no weight '{path}.{kind}'")
        oriented = entries.T if is_transposed(owners[path]) else entries
        if oriented.shape != parameter.shape:
            raise ValueError(
                f"{owner}.snapshot: {folder} is of another model: '{path}.{kind}' is {tuple(oriented.shape)} there and "
                f"{tuple(parameter.shape)} in the LLM"
            )
        found[f"{path}.{kind}"] = oriented
    return found
