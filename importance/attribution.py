r"""Which matrices caused the forgetting: the loss's path integral from the base weights to the tuned ones.

``A_m = <dW_m, int_0^1 g_m(W0 + a dW) da>``, and the sum over all parameters is the change of the loss (completeness).
This is Synaptic Intelligence's integral (Zenke et al. 2017, arXiv 1703.04200) along the straight line, on old-task
text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from .edits import weights_at
from .evaluate import answer_losses
from .losses import AnswerLoss
from .sites import clean_name, find_sites
from .state import undisturbed, unwrap

ENOUGH = 0.05  # completeness error that is accepted
MOST_NODES = 32


@dataclass(frozen=True)
class Revert:
    """Loss with some matrices put back to their base values.

    Attributes:
        names: Matrices put back.
        predicted: Loss that the attribution says they cost.
        recovered: Loss actually regained.
    """

    names: list[str]
    predicted: float
    recovered: float


@dataclass(frozen=True)
class Attribution:
    """Share of each parameter in the change of the loss.

    Attributes:
        parameters: Name -> nats; positive made the loss worse.
        layers: ``layer_07`` or ``other`` -> nats.
        loss_before: Mean loss of an example at the base weights.
        loss_after: At the tuned weights.
        completeness_error: (sum of all - change) over change.
        nodes: Gauss-Legendre nodes used.
        reverts: The check: single top matrices and all of them together put back.
    """

    parameters: dict[str, float]
    layers: dict[str, float]
    loss_before: float
    loss_after: float
    completeness_error: float
    nodes: int
    reverts: list[Revert]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def attribute(
    tuned: nn.Module,
    base: Mapping[str, Tensor],
    batches: Sequence[Mapping[str, Any]],
    *,
    nodes: int = 4,
    reverts: int = 3,
    progress: Callable[[str], None] = lambda _: None,
) -> Attribution:
    """Attributes the change of the loss on old-task text to the parameters that moved.

    Args:
        tuned: The tuned model, without adapters (merge them first); left as it is.
        base: Parameter name -> base value, for every parameter of ``tuned``.
        batches: Old-task text, as for ``probe``.
        nodes: Nodes to begin with; doubled until the completeness error is under 5 %.
        reverts: How many top matrices to put back as a check.
        progress: Told what is being done.

    Raises:
        ValueError: If the two models do not fit, or nothing moved.
    """
    tuned = unwrap(tuned)
    deltas = _deltas(tuned, base)
    names = list(deltas)
    moved = {name: base[name].to(delta.device, delta.dtype) for name, delta in deltas.items()}
    after = float(answer_losses(tuned, batches)[0].mean())
    with weights_at(tuned, names, moved):
        before = float(answer_losses(tuned, batches)[0].mean())
    while True:
        parts = _integrate(tuned, moved, deltas, batches, nodes, progress)
        change = after - before
        error = (sum(parts.values()) - change) / (change if change else 1.0)
        if abs(error) <= ENOUGH or 2 * nodes > MOST_NODES:
            break
        nodes *= 2
        progress(f"completeness error {error:.1%}: doubling to {nodes} nodes")
    direction = 1.0 if change >= 0 else -1.0  # where the loss fell, the matrices that brought it down are checked
    top = sorted(parts, key=lambda name: direction * parts[name], reverse=True)[:reverts]
    checks = _reverts(tuned, moved, parts, batches, after, top, progress)
    layers = _by_layer(tuned, parts)
    return Attribution({clean_name(n): v for n, v in parts.items()}, layers, before, after, float(error), nodes, checks)


def _deltas(tuned: nn.Module, base: Mapping[str, Tensor]) -> dict[str, Tensor]:
    deltas = {}
    for name, parameter in tuned.named_parameters():
        if name not in base or base[name].shape != parameter.shape:
            raise ValueError(f"importance: the base model has no {name} of shape {tuple(parameter.shape)}")
        delta = parameter.detach() - base[name].to(parameter)
        if bool((delta != 0).any()):
            deltas[name] = delta
    if not deltas:
        raise ValueError("importance: base and tuned model are equal, there is nothing to attribute")
    return deltas


def _integrate(
    model: nn.Module,
    start: Mapping[str, Tensor],
    deltas: Mapping[str, Tensor],
    batches: Sequence[Mapping[str, Any]],
    nodes: int,
    progress: Callable[[str], None],
) -> dict[str, float]:
    """Sum over the nodes of weight x <gradient, delta>; gradients are dropped one by one."""
    positions, weights = np.polynomial.legendre.leggauss(nodes)
    totals = dict.fromkeys(deltas, 0.0)
    for index, (position, weight) in enumerate(zip((positions + 1) / 2, weights / 2, strict=True)):
        progress(f"node {index + 1} of {nodes}")
        at_node = {name: start[name] + float(position) * delta for name, delta in deltas.items()}
        with weights_at(model, list(deltas), at_node):
            for name, slope in _slopes(model, deltas, batches).items():
                totals[name] += float(weight) * slope
    return totals


def _slopes(model: nn.Module, deltas: Mapping[str, Tensor], batches: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """``<g, delta>`` of each parameter, g the gradient of the mean loss of an example."""
    parameters = dict(model.named_parameters())
    loss = AnswerLoss(model)
    device = next(iter(parameters.values())).device
    count = sum(len(batch["labels"]) for batch in batches)
    sums = dict.fromkeys(deltas, 0.0)
    flags = {name: p.requires_grad for name, p in parameters.items()}
    kept = {name: p.grad for name, p in parameters.items()}
    try:
        for name, p in parameters.items():
            p.requires_grad_(name in deltas)
            p.grad = None
        with undisturbed(model):
            for batch in batches:
                moved = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in batch.items()}
                (loss.per_example(*loss.forward(moved)).sum() / count).backward()
                for name, delta in deltas.items():
                    gradient = parameters[name].grad
                    if gradient is not None:
                        sums[name] += float((gradient.double() * delta.double()).sum())
                    parameters[name].grad = None
    finally:
        for name, p in parameters.items():
            p.requires_grad_(flags[name])
            p.grad = kept[name]
    return sums


def _by_layer(model: nn.Module, parts: Mapping[str, float]) -> dict[str, float]:
    table = find_sites(model, ("norms",))
    width = max(2, len(str(table.layers - 1)))
    inside = {s.name: f"layer_{s.layer:0{width}d}" for s in table.sites if s.layer is not None}
    layers = {f"layer_{i:0{width}d}": 0.0 for i in range(table.layers)} | {"other": 0.0}
    for name, value in parts.items():
        layers[inside.get(clean_name(name), "other")] += value
    return layers


def _reverts(
    model: nn.Module,
    start: Mapping[str, Tensor],
    parts: Mapping[str, float],
    batches: Sequence[Mapping[str, Any]],
    after: float,
    top: list[str],
    progress: Callable[[str], None],
) -> list[Revert]:
    """Puts back each of the top matrices, then all of them."""
    checks = []
    for names in [*([name] for name in top), *([top] if len(top) > 1 else [])]:
        progress(f"putting back {', '.join(clean_name(n) for n in names)}")
        with weights_at(model, names, start):
            loss = float(answer_losses(model, batches)[0].mean())
        checks.append(Revert([clean_name(n) for n in names], sum(parts[n] for n in names), after - loss))
    return checks
