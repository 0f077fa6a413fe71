"""The path integral against losses whose integral is known, and against what putting weights back does."""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from torch import Tensor, nn

from textkeep.importance import attribution
from textkeep.importance.attribution import attribute
from textkeep.importance.evaluate import answer_losses
from textkeep.importance.reverts import blamed

from .learned import OTHER, TRAIN, assert_unchanged, fit, learned, weights
from .oracle import make_batch, tiny_llama

__all__ = ["learned"]


class Block(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.up_proj = nn.Linear(size, 3, bias=False)
        self.norm = nn.LayerNorm(3)


class Toy(nn.Module):
    """A model of two tokens whose loss on token 0 is a chosen function of its weights, times the example's first id."""

    def __init__(self, loss: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.loss = loss
        self.layers = nn.ModuleList([Block(2), Block(4)])
        self.head = nn.Linear(3, 2, bias=False)
        self.double()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        flat = torch.cat([p.flatten() for p in self.parameters()])
        value = self.loss(flat) * input_ids[:, 0].double()
        first = -torch.log(torch.expm1(value))  # the cross-entropy of softmax(first, 0) at token 0 is ``value``
        logits = torch.stack([first, torch.zeros_like(first)], dim=-1)
        return SimpleNamespace(logits=logits[:, None].expand(-1, input_ids.shape[1], -1))


BATCHES = [
    {"input_ids": torch.tensor(ids), "attention_mask": torch.ones(2, 3), "labels": torch.zeros(2, 3, dtype=torch.long)}
    for ids in ([[1, 1, 1], [3, 1, 1]], [[2, 1, 1], [5, 1, 1]])
]
MEAN = 11 / 4  # of the first ids: what the mean loss is multiplied by


def moved(model: nn.Module, scale: float = 0.5) -> tuple[nn.Module, dict[str, Tensor]]:
    """A copy with all weights moved, and the weights before."""
    tuned = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in tuned.parameters():
            p.add_(scale * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return tuned, weights(model)


def slices(model: nn.Module) -> dict[str, slice]:
    places, start = {}, 0
    for name, p in model.named_parameters():
        places[name] = slice(start, start + p.numel())
        start += p.numel()
    return places


def test_a_quadratic_loss_is_attributed_exactly_by_a_single_node() -> None:
    size = sum(p.numel() for p in Toy(torch.sum).parameters())
    generator = torch.Generator().manual_seed(2)
    root = torch.randn(size, size, generator=generator, dtype=torch.double) / size
    hessian, linear = root @ root.T, torch.rand(size, generator=generator, dtype=torch.double)
    model = Toy(lambda w: 1.0 + 0.5 * w @ hessian @ w + 0.1 * (linear @ w) ** 2)
    tuned, base = moved(model)
    result = attribute(tuned, base, BATCHES, nodes=1)
    start, end = (torch.cat([p.detach().flatten() for p in m.parameters()]) for m in (model, tuned))
    middle, change = (start + end) / 2, end - start
    slope = hessian @ middle + 0.2 * (linear @ middle) * linear  # of a quadratic: exact at the middle of the path
    for name, place in slices(model).items():
        assert result.parameters[name] == pytest.approx(MEAN * float(slope[place] @ change[place]), rel=1e-10)
    assert result.completeness_error == pytest.approx(0.0, abs=1e-10)
    assert result.nodes == 1
    assert result.loss_after - result.loss_before == pytest.approx(sum(result.parameters.values()))
    first = sum(v for n, v in result.parameters.items() if n.startswith("layers.0."))
    assert result.layers["layer_00"] == pytest.approx(first)  # norms and biases count with their layer
    assert result.layers["other"] == pytest.approx(result.parameters["head.weight"])


@pytest.mark.parametrize("nodes", [4, 8])
def test_a_curved_loss_agrees_with_scipy(nodes: int) -> None:
    """``2 + (a w)^8``: its slope along the path has degree 7, which 4 nodes integrate exactly."""
    size = sum(p.numel() for p in Toy(torch.sum).parameters())
    direction = torch.linspace(-0.2, 0.3, size, dtype=torch.double)
    model = Toy(lambda w: 2.0 + (direction @ w) ** 8)
    tuned, base = moved(model)
    result = attribute(tuned, base, BATCHES, nodes=nodes, reverts=0)
    start, end = (torch.cat([p.detach().flatten() for p in m.parameters()]) for m in (model, tuned))
    change = end - start
    for name, place in slices(model).items():

        def slope(a: float, place: slice = place) -> float:
            return MEAN * 8 * float((direction @ (start + a * change)) ** 7 * (direction[place] @ change[place]))

        assert result.parameters[name] == pytest.approx(quad(slope, 0, 1)[0], rel=1e-8, abs=1e-12)


def test_nodes_double_until_complete_and_the_end_is_told() -> None:
    wild = torch.linspace(0.5, 3.0, sum(p.numel() for p in Toy(torch.sum).parameters()), dtype=torch.double)
    tuned, base = moved(Toy(lambda w: 2.0 + torch.sin(400 * wild @ w)))
    result = attribute(tuned, base, BATCHES, nodes=1, reverts=0)
    assert result.nodes == 32
    assert not result.complete
    assert abs(result.completeness_error) > 0.05


def test_reverts_measure_what_is_really_regained() -> None:
    size = sum(p.numel() for p in Toy(torch.sum).parameters())
    direction = torch.linspace(-0.2, 0.3, size, dtype=torch.double)
    tuned, base = moved(Toy(lambda w: 1.0 + (direction * w).square().sum()))  # parts do not interact
    after = weights(tuned)
    result = attribute(tuned, base, BATCHES, reverts=2)
    assert_unchanged(tuned, after)
    assert [r.what for r in result.reverts] == ["matrix", "matrix", "together", "random", "layer"]
    for revert in result.reverts:
        assert revert.recovered == pytest.approx(revert.predicted, rel=1e-8)
    top = max(result.parameters, key=result.parameters.__getitem__)
    assert result.reverts[0].names == [top]
    worst = max(result.layers, key=result.layers.__getitem__)
    assert result.reverts[-1].predicted == pytest.approx(result.layers[worst])


@pytest.mark.parametrize("gained", [False, True], ids=["the loss rose", "the loss fell"])
def test_blame_is_what_made_the_loss_worse_whichever_way_it_went(gained: bool) -> None:
    """The check puts back what ``--revert`` puts back: parameters of positive nats, the worst first."""
    size = sum(p.numel() for p in Toy(torch.sum).parameters())
    slope = torch.linspace(-0.3, 0.3, size, dtype=torch.double)
    tuned, base = moved(Toy(lambda w: 5.0 + (-1 if gained else 1) * (slope * w).sum() + 0.01 * (w**2).sum()))
    result = attribute(tuned, base, BATCHES, reverts=2)
    signs = {np.sign(value) for value in result.parameters.values()}
    assert signs == {-1.0, 1.0}
    expected = blamed(result.parameters)
    assert [result.parameters[name] for name in expected] == sorted(
        (value for value in result.parameters.values() if value > 0), reverse=True
    )
    single = [r for r in result.reverts if r.what == "matrix"]
    assert [r.names[0] for r in single] == expected[:2]
    for revert in result.reverts:
        if revert.what != "random":
            assert revert.predicted > 0
            assert revert.recovered > 0  # a positive sign is a lower loss, on both sides of the table


def test_where_nothing_is_to_blame_nothing_is_put_back() -> None:
    tuned, base = moved(Toy(lambda w: 5.0 + 0.1 * (w**2).sum()))
    for name, p in tuned.named_parameters():
        p.data = base[name] * 0.5  # all the way downhill
    result = attribute(tuned, base, BATCHES)
    assert blamed(result.parameters) == result.reverts == []


def test_attribution_is_complete_and_leaves_no_trace(learned: nn.Module) -> None:
    base = weights(learned)
    tuned = fit(copy.deepcopy(learned), OTHER, 10)
    after = weights(tuned)
    kept = torch.ones_like(tuned.model.norm.weight)
    tuned.model.norm.weight.grad = kept
    tuned.model.norm.weight.requires_grad_(False)
    result = attribute(tuned, base, TRAIN)
    assert_unchanged(tuned, after)
    assert tuned.model.norm.weight.grad is kept
    assert [n for n, p in tuned.named_parameters() if not p.requires_grad] == ["model.norm.weight"]
    assert result.loss_after > result.loss_before
    assert result.change_low < result.loss_after - result.loss_before < result.change_high
    assert abs(result.completeness_error) < 0.05
    assert result.complete
    assert sum(result.parameters.values()) == pytest.approx(
        (result.loss_after - result.loss_before) * (1 + result.completeness_error), rel=1e-4
    )
    assert sum(result.layers.values()) == pytest.approx(sum(result.parameters.values()))
    regained = {r.what: r.recovered for r in result.reverts}
    assert regained["together"] > regained["random"]
    with pytest.raises(ValueError, match="nothing to attribute"):
        attribute(tuned, after, TRAIN)


def test_weights_are_put_back_after_an_interruption(learned: nn.Module) -> None:
    tuned = fit(copy.deepcopy(learned), OTHER, 2)
    after = weights(tuned)

    def interrupt(what: str, done: int, total: int) -> None:
        if what.startswith("integrating") and done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        attribute(tuned, weights(learned), TRAIN, progress=interrupt)
    assert_unchanged(tuned, after)
    assert all(p.grad is None and p.requires_grad for p in tuned.parameters())


def test_another_model_is_refused(learned: nn.Module) -> None:
    base = weights(learned)
    base["model.norm.weight"] = torch.ones(3)
    with pytest.raises(ValueError, match=r"the base model has no model\.norm\.weight of shape \(24,\)"):
        attribute(learned, base, TRAIN)


def test_the_change_is_the_difference_of_the_losses(learned: nn.Module) -> None:
    tuned = fit(copy.deepcopy(learned), OTHER, 5)
    result = attribute(tuned, weights(learned), TRAIN, reverts=0)
    losses = [answer_losses(model, TRAIN)[0] for model in (learned, tuned)]
    assert result.loss_before == pytest.approx(losses[0].mean())
    assert result.loss_after == pytest.approx(losses[1].mean())
    assert result.examples == len(losses[0])
    assert np.isfinite(list(result.parameters.values())).all()


def test_gradients_are_dropped_one_by_one(learned: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the model, the base values and the point on the way there are three copies of the weights, never more."""
    tuned = fit(copy.deepcopy(learned), OTHER, 2)
    base = weights(learned)
    most = 0

    def watch(sums: dict, name: str, start: Tensor, end: Tensor) -> Callable[[Tensor], None]:
        inner = attribution._taking_before_watching(sums, name, start, end)
        assert start is base[name]  # no copy of what was given

        def take(parameter: Tensor) -> None:
            nonlocal most
            most = max(most, sum(p.grad is not None for p in tuned.parameters()))
            inner(parameter)

        return take

    monkeypatch.setattr(attribution, "_taking_before_watching", attribution._taking, raising=False)
    monkeypatch.setattr(attribution, "_taking", watch)
    result = attribute(tuned, base, TRAIN[:1], nodes=1, reverts=0)
    assert most == 1
    assert len(result.parameters) > 20


def test_the_peak_of_the_memory_is_three_copies() -> None:
    """Weights far larger than activations: what the pass allocates beside model and base is one copy and a little."""
    torch.manual_seed(0)
    tuned, base = moved(tiny_llama(hidden_size=128, intermediate_size=256, layers=4).float(), scale=0.02)
    size = sum(p.numel() * p.element_size() for p in tuned.parameters())
    largest = max(p.numel() * p.element_size() for p in tuned.parameters())
    batch = {k: v[:1, :4] if isinstance(v, Tensor) else v for k, v in make_batch(2, length=5).items()}
    batch["labels"] = batch["input_ids"].clone()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        attribute(tuned, base, [batch], nodes=1, reverts=0)
    alive = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            alive += event.nbytes()
            peak = max(peak, alive)
    assert size < peak < 1.3 * size + 6 * largest
