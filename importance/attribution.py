r"""Which matrices are to blame for what was forgotten: the loss's path integral from base to tuned weights.

``A_m = <dW_m, int_0^1 g_m(W0 + a dW) da>``, and the sum over all parameters is the change of the loss (completeness).
This is Synaptic Intelligence's integral (Zenke et al. 2017, arXiv 1703.04200) along the straight line, on old-task
text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..foundation.decoder import clean_name
from ..foundation.run_names import layer_label
from .edits import on_the_line, weights_at
from .evaluate import answer_losses, mean_interval
from .losses import AnswerLoss
from .progress import Progress, counted, silent
from .reverts import Revert, measure_reverts, revert_sets
from .sites import find_sites
from .state import undisturbed, unwrap

ENOUGH = 0.05  # accepted completeness error
MOST_NODES = 32
PIECE = 1 << 22  # entries of a gradient multiplied in float64 at a time
OTHER = "other"  # parameters outside the decoder blocks


@dataclass(frozen=True)
class Attribution:
    """Share of each parameter in the change of the loss.

    Attributes:
        parameters: Name -> nats that its move added to the loss: positive made it worse (:func:`blamed`), negative
            better.
        layers: ``layer_07`` or ``other`` -> nats, of the same sign.
        loss_before: Mean loss of an example at the base weights.
        loss_after: At the tuned weights.
        change_low: Lower end of the change's bootstrap 90 % interval over examples.
        change_high: Upper end.
        completeness_error: (sum of all - change) over change.
        complete: Whether that error is at most 5 %. If it is not, the shares are not to be trusted.
        nodes: Gauss-Legendre nodes used.
        reverts: The check: the matrices most to blame reverted one by one and together, the worst layer, and a random
            control; empty if no matrix made the loss worse.
        examples: Number of examples.
    """

    parameters: dict[str, float]
    layers: dict[str, float]
    loss_before: float
    loss_after: float
    change_low: float
    change_high: float
    completeness_error: float
    complete: bool
    nodes: int
    reverts: list[Revert]
    examples: int

    def as_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON."""
        return asdict(self)


def attribute(
    tuned: nn.Module,
    base: Mapping[str, Tensor],
    batches: Sequence[Mapping[str, Any]],
    *,
    nodes: int = 4,
    reverts: int = 3,
    seed: int = 0,
    progress: Progress = silent,
) -> Attribution:
    """Attributes the change of the loss on old-task text to the parameters that moved.

    Memory: three copies of these parameters (``tuned``, ``base`` and the current point), and one gradient at a time.

    Args:
        tuned: The tuned model, without adapters (merge them first); left as it is.
        base: Parameter name -> base value, for every parameter of ``tuned``.
        batches: Old-task text, as for ``probe``.
        nodes: Nodes to begin with; doubled until the completeness error is under 5 %.
        reverts: How many of the matrices to blame to revert as a check; 0 skips the check.
        seed: Of the random control.
        progress: Told what is being done.

    Raises:
        ValueError: If the two models do not match, or nothing moved.
    """
    tuned = unwrap(tuned)
    moved = _moved(tuned, base)
    names = list(moved)
    loss_after = answer_losses(tuned, counted(batches, "loss, tuned weights", progress))[0]
    with weights_at(tuned, names, moved):
        loss_before = answer_losses(tuned, counted(batches, "loss, base weights", progress))[0]
    before, after = float(loss_before.mean()), float(loss_after.mean())
    change = after - before
    while True:
        parts = _integrate(tuned, moved, batches, nodes, progress)
        error = (sum(parts.values()) - change) / (change if change else 1.0)
        if abs(error) <= ENOUGH or 2 * nodes > MOST_NODES:
            break
        nodes *= 2
    layers = {clean_name(n): label for n, label in _layer_of(tuned, parts).items()}
    found = {clean_name(n): v for n, v in parts.items()}
    sums = dict.fromkeys([*_layer_labels(tuned), OTHER], 0.0)
    for name, value in found.items():
        sums[layers[name]] += value
    low, high = mean_interval(loss_after - loss_before)
    sets = revert_sets(found, layers, sums, reverts, seed)
    return Attribution(
        parameters=found,
        layers=sums,
        loss_before=before,
        loss_after=after,
        change_low=low,
        change_high=high,
        completeness_error=float(error),
        complete=abs(error) <= ENOUGH,
        nodes=nodes,
        reverts=measure_reverts(tuned, moved, found, batches, after, sets, progress),
        examples=len(loss_after),
    )


def _moved(tuned: nn.Module, base: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Keeps the base value of each parameter that has changed, in its type and on its device."""
    moved = {}
    for name, parameter in tuned.named_parameters():
        if name not in base or base[name].shape != parameter.shape:
            raise ValueError(f"importance: the base model has no {name} of shape {tuple(parameter.shape)}")
        value = base[name].to(parameter.detach())
        if not torch.equal(value, parameter.detach()):
            moved[name] = value
    if not moved:
        raise ValueError("importance: base and tuned model are equal, there is nothing to attribute")
    return moved


def _integrate(
    model: nn.Module,
    start: Mapping[str, Tensor],
    batches: Sequence[Mapping[str, Any]],
    nodes: int,
    progress: Progress,
) -> dict[str, float]:
    """Sums weight x <gradient, change> over the nodes."""
    positions, weights = np.polynomial.legendre.leggauss(nodes)
    totals = dict.fromkeys(start, 0.0)
    path = list(zip((positions + 1) / 2, weights / 2, strict=True))
    with on_the_line(model, start) as put:
        for position, weight in counted(path, f"integrating over {nodes} nodes", progress):
            for name, slope in _slopes(model, start, put(float(position)), batches).items():
                totals[name] += float(weight) * slope
    return totals


def _slopes(
    model: nn.Module, start: Mapping[str, Tensor], end: Mapping[str, Tensor], batches: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """Returns ``<g, end - start>`` of each parameter, g the gradient of the mean loss of an example.

    Each gradient is used and dropped as soon as the backward pass produces it, so that only one is held at a time.
    """
    parameters = dict(model.named_parameters())
    loss = AnswerLoss(model)
    device = next(iter(parameters.values())).device
    count = sum(len(batch["labels"]) for batch in batches)
    sums = dict.fromkeys(start, 0.0)
    flags = {name: p.requires_grad for name, p in parameters.items()}
    kept = {name: p.grad for name, p in parameters.items()}
    handles = []
    try:
        for name, p in parameters.items():
            p.requires_grad_(name in start)
            p.grad = None
        for name in start:
            hook = _taking(sums, name, start[name], end[name])
            handles.append(parameters[name].register_post_accumulate_grad_hook(hook))
        with undisturbed(model):
            for batch in batches:
                moved = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in batch.items()}
                (loss.per_example(*loss.forward(moved)).sum() / count).backward()
    finally:
        for handle in handles:
            handle.remove()
        for name, p in parameters.items():
            p.requires_grad_(flags[name])
            p.grad = kept[name]
    return sums


def _taking(sums: dict[str, float], name: str, start: Tensor, end: Tensor) -> Callable[[Tensor], None]:
    """Builds a hook that adds ``<gradient, end - start>`` to a parameter's sum in pieces and drops the gradient."""

    def take(parameter: Tensor) -> None:
        if parameter.grad is not None:
            pieces = zip(*(t.detach().reshape(-1).split(PIECE) for t in (parameter.grad, start, end)), strict=True)
            sums[name] += sum(float(g.double() @ (b.double() - a.double())) for g, a, b in pieces)
        parameter.grad = None

    return take


def _layer_labels(model: nn.Module) -> list[str]:
    count = find_sites(model).layers
    return [layer_label(i, count) for i in range(count)]


def _layer_of(model: nn.Module, names: Iterable[str]) -> dict[str, str]:
    """Returns the label of the decoder block that contains each parameter, by identity; biases and norms included."""
    blocks = find_sites(model).blocks
    inside = {
        id(p): label for label, block in zip(_layer_labels(model), blocks, strict=True) for p in block.parameters()
    }
    parameters = dict(model.named_parameters())
    return {name: inside.get(id(parameters[name]), OTHER) for name in names}
