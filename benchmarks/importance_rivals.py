"""Other ways to compute an importance score, on the same model and data as ours."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from .importance_models import Batch

Totals = dict[str, dict[str, Tensor]]  # estimator -> parameter name -> sum over the examples of the matrix total
Rival = Callable[[nn.Module, list[Batch]], Totals]


def mean_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Mean over all answer tokens, in the model's own type (that of transformers is in float32 even for float64)."""
    logits = model(input_ids=batch["input_ids"], use_cache=False).logits[:, :-1]
    return F.cross_entropy(logits.flatten(0, 1), batch["labels"][:, 1:].flatten())  # -100 is ignored


def loop(model: nn.Module, data: list[Batch]) -> Totals:
    """One backward pass per example; sums of |theta g| and g^2 of every weight are kept."""
    sums = {n: (torch.zeros_like(p), torch.zeros_like(p)) for n, p in model.named_parameters()}
    for batch in data:
        for row in range(len(batch["labels"])):
            mean_loss(model, {k: v[row : row + 1] for k, v in batch.items()}).backward()
            for name, parameter in model.named_parameters():
                gradient = parameter.grad
                assert gradient is not None
                sums[name][0].add_((parameter.detach() * gradient).abs_())
                sums[name][1].addcmul_(gradient, gradient)
            model.zero_grad(set_to_none=True)
    return {e: {n: both[i].sum() for n, both in sums.items()} for i, e in enumerate(("taylor", "fisher"))}


def vectorised(model: nn.Module, data: list[Batch]) -> Totals:
    """``torch.func.vmap(grad)``: the gradients of all examples of a batch at once."""
    weights = {n: p.detach() for n, p in model.named_parameters()}

    def loss(values: Mapping[str, Tensor], ids: Tensor, labels: Tensor) -> Tensor:
        logits = functional_call(model, dict(values), (), {"input_ids": ids[None], "use_cache": False}).logits[0]
        return F.cross_entropy(logits[:-1], labels[1:])

    per_example = vmap(grad(loss), in_dims=(None, 0, 0))
    totals: Totals = {"taylor": {}, "fisher": {}}
    for batch in data:
        for name, g in per_example(weights, batch["input_ids"], batch["labels"]).items():
            for estimator, value in (("taylor", (g * weights[name]).abs().sum()), ("fisher", g.square().sum())):
                totals[estimator][name] = totals[estimator].get(name, 0) + value
    return totals


@lru_cache(maxsize=1)
def _extended(model: nn.Module) -> nn.Module:
    from backpack import extend

    extended = copy.deepcopy(model)
    for module in extended.modules():
        if isinstance(module, nn.Linear):  # BackPACK cannot score its RMSNorm and attention modules
            extend(module)
    return extended


def backpack(model: nn.Module, data: list[Batch]) -> Totals:
    """BackPACK's ``SumGradSquared`` on all Linear layers; a mean over B examples scales it by 1 / B^2."""
    from backpack import backpack as active
    from backpack.extensions import SumGradSquared

    extended = _extended(model)
    sums: dict[str, Tensor] = {}
    for batch in data:
        with warnings.catch_warnings(), active(SumGradSquared()):
            warnings.simplefilter("ignore")
            mean_loss(extended, batch).backward()
        for name, parameter in extended.named_parameters():
            if hasattr(parameter, "sum_grad_squared"):
                scaled = parameter.sum_grad_squared.mul_(len(batch["labels"]) ** 2)
                sums[name] = sums[name].add_(scaled) if name in sums else scaled
                del parameter.sum_grad_squared
        extended.zero_grad(set_to_none=True)
    return {"fisher": {name: entries.sum() for name, entries in sums.items()}}


@lru_cache(maxsize=1)
def _groups(model: nn.Module) -> list[Any]:
    """Torch-Pruning's channel groups of the model, traced once and not timed."""
    import torch_pruning

    example = torch.ones(1, 8, dtype=torch.int64, device=next(model.parameters()).device)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = torch_pruning.DependencyGraph().build_dependency(
            model, {"input_ids": example}, forward_fn=lambda m, inputs: m(**inputs, use_cache=False).logits
        )
        return list(graph.get_all_groups(root_module_types=[nn.Linear]))


def torch_pruning(model: nn.Module, data: list[Batch]) -> Totals:
    """Torch-Pruning's ``GroupTaylorImportance``: a score of each channel from the gradient of the batch's mean loss.

    The matrix totals are its formula ``(w * dw).abs().sum()``, which is not the mean over examples of |theta g|.
    """
    import torch_pruning

    groups, score = _groups(model), torch_pruning.importance.GroupTaylorImportance(normalizer=None)
    totals: dict[str, Tensor] = {}
    for batch in data:
        mean_loss(model, batch).backward()
        for group in groups:
            score(group)
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None
            value = (parameter.detach() * parameter.grad).abs().sum() * len(batch["labels"])
            totals[name] = totals.get(name, torch.zeros_like(value)) + value
        model.zero_grad(set_to_none=True)
    return {"taylor": totals}


RIVALS: dict[str, Rival] = {
    "loop over examples": loop,
    "torch.func.vmap": vectorised,
    "BackPACK": backpack,
    "Torch-Pruning": torch_pruning,
}
