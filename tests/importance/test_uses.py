"""How a model uses its weights: not at all, twice, writing over outputs, by a formula of its own; and the self-test."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from textkeep.importance import probe
from textkeep.importance.accumulator import Accumulator
from textkeep.importance.faithfulness import verify
from textkeep.importance.removal import removal_test
from textkeep.importance.site_table import Site

from .oracle import error, make_batch, tiny_llama, truth


def test_a_weight_that_no_module_call_uses_is_named_and_left_out() -> None:
    model = tiny_llama()
    layer = model.model.layers[1].mlp
    layer.forward = lambda x: layer.down_proj(layer.act_fn(F.linear(x, layer.gate_proj.weight)) * layer.up_proj(x))
    with pytest.warns(
        UserWarning, match=r"88\.7% .*not called in a forward .*layers\.1\.mlp\.gate_proj\.weight\. Layer"
    ):
        snapshot = probe(model, [make_batch()])
    assert len(snapshot.table) == 13
    assert snapshot.meta["coverage"] == pytest.approx(0.887, abs=1e-3)
    assert "model.layers.1.mlp.gate_proj.weight" in snapshot.meta["untapped"]


def test_checks_change_the_weights_that_were_scored() -> None:
    """The sites of the model and the rows of the snapshot's table are not the same list where one is left out."""
    model = tiny_llama().float()
    layer = model.model.layers[0].self_attn
    layer.k_proj.forward = lambda x: F.linear(x, layer.k_proj.weight) + 0.1
    batches = [make_batch(4, seed=1), make_batch(4, seed=2)]
    changed: list[str] = []

    def shrink(site: Site, *_: object) -> AbstractContextManager[None]:
        changed.append(site.name)
        return nullcontext()

    def zero(sites: dict[int, Site], masks: dict[int, Tensor]) -> AbstractContextManager[None]:
        assert all(mask.shape == sites[index].shape for index, mask in masks.items())
        changed.extend(sites[index].name for index in masks)
        return nullcontext()

    with mock.patch("textkeep.importance.faithfulness.shrunk", shrink):
        result = verify(model, batches, batches, groups=50, shrinks=(1.0,))
    assert changed == result.groups
    changed.clear()
    with mock.patch("textkeep.importance.removal.zeroed", zero):
        removal_test(model, batches, {"text": batches}, fraction=0.1)
    assert "model.layers.0.self_attn.k_proj.weight" not in changed
    assert len(changed) == 3 * 13


def test_a_block_whose_taps_are_lost_is_an_error() -> None:
    """As of a compiled block: its own forward calls none of its modules."""
    model = tiny_llama()
    model.model.layers[1].forward = lambda hidden_states, **_: hidden_states
    with pytest.raises(RuntimeError, match=r"no weight of decoder block 1 can be scored .*pass the uncompiled model"):
        probe(model, [make_batch()])


def test_a_block_that_no_gradient_reaches_is_an_error() -> None:
    model = tiny_llama()
    model.model.layers[0].register_forward_hook(lambda module, args, output: output.detach().requires_grad_())
    with pytest.raises(RuntimeError, match=r"did not fire .*model\.layers\.0\."):
        probe(model, [make_batch()])


def test_a_weight_whose_output_is_detached_scores_nothing() -> None:
    model = tiny_llama()
    model.model.layers[0].mlp.up_proj.register_forward_hook(lambda module, args, output: output.detach())
    with pytest.warns(UserWarning, match="does not obey up=down"):
        snapshot = probe(model, [make_batch(2)], ("taylor", "fisher", "signed_taylor"))
    for estimator in snapshot.estimators:
        assert snapshot.matrices(estimator)["model.layers.0.mlp.up_proj.weight"] == 0.0
        assert snapshot.matrices(estimator)["model.layers.0.mlp.down_proj.weight"] > 0.0


@pytest.mark.parametrize("estimators", [("taylor", "fisher", "signed_taylor"), "fisher", "signed_taylor"])
def test_a_block_used_twice_is_scored_once_by_both_uses(estimators: str | tuple[str, ...]) -> None:
    model = tiny_llama()
    model.model.layers[1].mlp = model.model.layers[0].mlp
    snapshot = probe(model, [make_batch(padded=True)], estimators, include=("norms",))
    assert len(snapshot.table) == 11 + 5
    expected = truth(model, [make_batch(padded=True)])
    assert max(error(snapshot, expected, estimator) for estimator in snapshot.estimators) < 1e-10
    assert snapshot.meta["coverage"] == 1.0


def test_modules_that_share_one_weight_are_one_site() -> None:
    model = tiny_llama()
    model.model.layers[1].mlp.up_proj.weight = model.model.layers[0].mlp.up_proj.weight
    snapshot = probe(model, [make_batch(padded=True)], ("taylor", "fisher", "signed_taylor", "wanda"))
    expected = truth(model, [make_batch(padded=True)])
    assert max(error(snapshot, expected, e) for e in ("taylor", "fisher", "signed_taylor")) < 1e-10
    assert [m.name for m in snapshot.table if "up_proj" in m.name] == ["model.layers.0.mlp.up_proj.weight"]


def test_outputs_that_are_written_over() -> None:
    model = tiny_llama()
    expected = probe(model, [make_batch()])
    for layer in model.model.layers:
        mlp = layer.mlp
        mlp.forward = lambda x, mlp=mlp: mlp.down_proj(mlp.up_proj(x).mul_(mlp.act_fn(mlp.gate_proj(x)))).add_(0.0)
    found = probe(model, [make_batch()])
    for estimator in expected.estimators:
        np.testing.assert_allclose(found.examples[estimator], expected.examples[estimator], rtol=1e-10)
        for side in ("rows", "columns"):
            one, other = (np.concatenate(getattr(s, side)[estimator]) for s in (found, expected))
            np.testing.assert_allclose(one, other, rtol=1e-9)


def test_a_linear_layer_with_a_formula_of_its_own_is_left_out() -> None:
    model = tiny_llama()
    up = model.model.layers[0].mlp.up_proj
    inner = up.forward
    up.forward = lambda x: inner(x) + 0.1  # a bias that the taps do not know of
    with pytest.warns(UserWarning, match=r"does not compute the product with its weight: model\.layers\.0\.mlp\.up"):
        assert len(probe(model, [make_batch()]).table) == 13


@pytest.mark.parametrize("estimators", ["signed_taylor", "fisher", "taylor", "fisher_sampled", "taylor_batch"])
def test_wrong_scores_fail_the_self_test(estimators: str, monkeypatch: pytest.MonkeyPatch) -> None:
    report = Accumulator.input_gradient
    monkeypatch.setattr(Accumulator, "input_gradient", lambda self, i, a, dx: report(self, i, a, dx * (1 + 0.01 * i)))
    with pytest.raises(RuntimeError, match=r"self-test failed: up=down off by .* LlamaForCausalLM are not its grad"):
        probe(tiny_llama(), [make_batch()], estimators, vectors=False)
    assert probe(tiny_llama(), [make_batch()], self_test=False).meta["conservation"] == {}


@pytest.mark.parametrize("estimators", ["signed_taylor", "taylor"])
def test_an_architecture_without_an_identity_is_measured_with_a_warning(estimators: str) -> None:
    """A function between v and o that is no module: the tree does not show it, autograd on an example clears it."""
    model = tiny_llama().float()
    plain = [p.grad for p in model.parameters()]
    for layer in model.model.layers:
        layer.self_attn.o_proj.register_forward_pre_hook(lambda module, args: (torch.tanh(3 * args[0]),))
    with pytest.warns(UserWarning, match="does not obey v=o off by .*: these matrices count apart"):
        snapshot = probe(model.train(), [make_batch(padded=True)], estimators)
    assert set(snapshot.meta["conservation"]) == {"up=down", "q=k"}
    assert {m.kind for m in snapshot.table if m.equal_to} == {"down", "k"}
    assert [p.grad for p in model.parameters()] == plain
    assert all(p.requires_grad for p in model.parameters())
    assert all(m.training for m in model.modules())
