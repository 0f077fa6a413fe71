"""Removal and faithfulness on a tiny model that has learned something; every edit ends bit for bit where it began."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from textkeep.importance import probe
from textkeep.importance.edits import shrunk, zeroed
from textkeep.importance.evaluate import answer_losses, mean_interval, perplexity
from textkeep.importance.faithfulness import SCORES, verify
from textkeep.importance.groups import stratified
from textkeep.importance.removal import removal_test
from textkeep.importance.resume import ResumedLosses
from textkeep.importance.sites import find_sites

from .learned import OTHER, TRAIN, adapted, assert_unchanged, learned, weights
from .oracle import example_loss, make_batch

__all__ = ["learned"]


def test_losses_without_gradients_equal_the_loop(learned: nn.Module) -> None:
    batch = make_batch(4, seed=2, padded=True)
    losses, tokens = answer_losses(learned, [batch])
    expected = [example_loss(learned, batch, row).item() for row in range(4)]
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    assert perplexity(losses, tokens) == pytest.approx(np.exp((losses * tokens).sum() / tokens.sum()))


def test_the_interval_of_a_mean_is_what_theory_says() -> None:
    values = np.random.default_rng(0).normal(2.0, 3.0, 400)
    low, high = mean_interval(values)
    margin = 1.645 * values.std() / 20
    assert (low, high) == (
        pytest.approx(values.mean() - margin, abs=0.05),
        pytest.approx(values.mean() + margin, abs=0.05),
    )


@pytest.mark.parametrize("scope", ["matrix", "layer", "global"])
def test_removal_orders_top_random_bottom_and_restores(learned: nn.Module, scope: str) -> None:
    before = weights(learned)
    test = removal_test(learned, TRAIN, {"text": TRAIN, "other": OTHER}, fraction=0.05, scope=scope)
    assert_unchanged(learned, before)
    assert test.ordered["text"]
    loss = {(r.removed, r.data): r for r in test.rows}
    assert loss["none", "text"].increase == 0.0
    assert loss["top", "text"].low > loss["bottom", "text"].high


@pytest.mark.parametrize("mode", ["top", "bottom"])
def test_removal_zeroes_the_weights_that_its_name_says(learned: nn.Module, mode: str) -> None:
    """Against a loop that sorts each matrix's scores and zeroes by hand."""
    test = removal_test(learned, TRAIN, {"text": OTHER}, fraction=0.1)
    maps = probe(learned, TRAIN, "taylor", keep_maps=("taylor",)).parameters("taylor")
    parameters, before = dict(learned.named_parameters()), weights(learned)
    with torch.no_grad():
        for name, scores in maps.items():
            order = scores.flatten().argsort(descending=mode == "top")
            parameters[name].view(-1)[order[: round(0.1 * scores.numel())]] = 0.0
    expected = answer_losses(learned, OTHER)[0].mean()
    with torch.no_grad():
        for name, value in before.items():
            parameters[name].copy_(value)
    found = next(r for r in test.rows if r.removed == mode)
    assert found.loss == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("kind", ["plain", "lora", "tied embeddings", "bfloat16"])
def test_removal_restores_bit_for_bit_after_an_error(learned: nn.Module, kind: str) -> None:
    model = {"lora": adapted, "bfloat16": lambda m: adapted(m).bfloat16()}.get(kind, lambda m: m)(learned)
    include = ("embeddings", "norms") if kind == "tied embeddings" else ()
    before = weights(model)

    def interrupt(what: str, done: int, total: int) -> None:
        if what.startswith("random"):
            assert any(not torch.equal(p, before[n]) for n, p in model.named_parameters())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        removal_test(model, TRAIN[:1], {"text": TRAIN[:1]}, progress=interrupt, include=include)
    assert_unchanged(model, before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fraction": 0.0}, r"fraction=0\.0 must lie in \(0, 1\)"),
        ({"scope": "head"}, "top_scope='head' is unknown; allowed: matrix, layer, global"),
        ({"estimator": "signed_taylor"}, "'signed_taylor' does not score single weights; allowed: taylor"),
    ],
)
def test_removal_refuses_in_one_line(learned: nn.Module, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        removal_test(learned, TRAIN, {"text": TRAIN}, **options)


def test_edits_of_an_adapted_model_act_on_the_effective_weight(learned: nn.Module) -> None:
    model = adapted(learned)
    before = weights(model)
    sites = dict(enumerate(find_sites(model).sites))
    masks = {i: torch.rand(s.shape) < 0.2 for i, s in sites.items()}
    with zeroed(sites, masks):
        for index, site in sites.items():
            assert site.weight()[masks[index]].abs().max() < 1e-6
    effective = sites[3].weight().clone()
    with shrunk(sites[3], masks[3], 0.25):
        expected = torch.where(masks[3], 0.75 * effective, effective)
        torch.testing.assert_close(sites[3].weight(), expected, rtol=1e-5, atol=1e-6)
    assert_unchanged(model, before)


@pytest.mark.parametrize("granularity", ["matrix", "head"])
def test_scores_foretell_effects_better_than_chance(learned: nn.Module, granularity: str) -> None:
    before = weights(learned)
    result = verify(learned, TRAIN, TRAIN, granularity=granularity, groups=20, shrinks=(1.0,))
    assert_unchanged(learned, before)
    found = {r.score: r for r in result.results}
    assert found["taylor"].spearman > 0.4
    assert found["taylor"].spearman > found["random"].high
    assert found["taylor"].low <= found["taylor"].spearman <= found["taylor"].high
    assert len(result.groups) == len(result.effects[1.0]) == (12 if granularity == "matrix" else 20)
    assert result.reliability["taylor"] > 0.5
    assert result.effect_reliability[1.0] > 0.5
    assert (result.examples, result.evaluated) == (24, 24)


def test_the_figures_of_faithfulness_against_scipy_and_by_hand(learned: nn.Module) -> None:
    result = verify(learned, TRAIN, OTHER, groups=12, shrinks=(0.1, 1.0))
    assert [r.score for r in result.results] == [*SCORES, "random"] * 2
    for judged in result.results:
        effects = np.abs(result.effects[judged.shrink])
        assert judged.worst == pytest.approx(effects.max())
        if judged.score == "random":
            continue
        scores = np.array(result.scores[judged.score])
        assert judged.spearman == pytest.approx(spearmanr(scores, effects).statistic)
        top = [set(np.argsort(-values, kind="stable")[:3]) for values in (scores, effects)]
        assert judged.precision == pytest.approx(len(top[0] & top[1]) / 3)
        assert judged.worst_missed == pytest.approx(max(effects[i] for i in np.argsort(-scores, kind="stable")[6:]))


def test_a_measured_effect_is_the_change_of_the_loss(learned: nn.Module) -> None:
    result = verify(learned, TRAIN, OTHER, groups=6, shrinks=(0.5,))
    parameters = dict(learned.named_parameters())
    for name, effect in zip(result.groups, result.effects[0.5], strict=True):
        kept = parameters[name].detach().clone()
        with torch.no_grad():
            parameters[name].mul_(0.5)
        changed = answer_losses(learned, OTHER)[0].mean()
        with torch.no_grad():
            parameters[name].copy_(kept)
        assert effect == pytest.approx(changed - result.loss, abs=1e-6)


def test_a_layer_is_all_of_its_matrices(learned: nn.Module) -> None:
    """Its score is the layer's total, its effect what the matrices of the block shrunk by hand do."""
    before = weights(learned)
    result = verify(learned, TRAIN, OTHER, granularity="layer", shrinks=(0.5,))
    assert_unchanged(learned, before)
    snapshot = probe(learned, TRAIN, ("taylor", "signed_taylor"))
    for name in ("taylor", "signed_taylor"):
        labels, member = snapshot.membership(name)
        assert result.groups == labels
        np.testing.assert_allclose(result.scores[name], snapshot.scores(name) @ member, rtol=1e-6)
    parameters = dict(learned.named_parameters())
    for layer, effect in enumerate(result.effects[0.5]):
        inside = [m.name for m in snapshot.table if m.layer == layer]
        kept = {name: parameters[name].detach().clone() for name in inside}
        with torch.no_grad():
            for name in inside:
                parameters[name].mul_(0.5)
        changed = answer_losses(learned, OTHER)[0].mean()
        with torch.no_grad():
            for name, value in kept.items():
                parameters[name].copy_(value)
        assert effect == pytest.approx(changed - result.loss, abs=1e-6)


def test_the_random_baseline_is_the_distribution_of_luck(learned: nn.Module) -> None:
    """Spearman of two independent orders of n has mean 0 and standard deviation 1 / sqrt(n - 1)."""
    result = verify(learned, TRAIN, OTHER, granularity="head", groups=17, shrinks=(1.0,))
    chance = next(r for r in result.results if r.score == "random")
    assert chance.spearman == pytest.approx(0.0, abs=0.03)
    assert chance.high == pytest.approx(1.645 / 4, abs=0.05)
    assert chance.low == pytest.approx(-1.645 / 4, abs=0.05)
    assert chance.precision == pytest.approx(4 / 17, abs=0.03)  # 4 of the 17 are the top quarter
    assert chance.worst_missed <= chance.worst


@pytest.mark.parametrize("kind", ["lora", "tied embeddings"])
def test_verify_restores_after_an_error(learned: nn.Module, kind: str) -> None:
    model = adapted(learned) if kind == "lora" else learned
    include = ("embeddings",) if kind == "tied embeddings" else ()
    before = weights(model)

    def interrupt(what: str, done: int, total: int) -> None:
        if what.startswith("shrinking") and done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verify(model, TRAIN[:1], TRAIN[:1], progress=interrupt, include=include)
    assert_unchanged(model, before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"granularity": "row"}, "allowed: layer, matrix, head"),
        ({"shrinks": (0.0,)}, r"shrink=\[0\.0\] must lie in \(0, 1\]"),
    ],
)
def test_verify_refuses_in_one_line(learned: nn.Module, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        verify(learned, TRAIN, TRAIN, **options)


def test_groups_come_from_every_decile() -> None:
    scores = np.random.default_rng(0).permutation(200).astype(float)
    chosen = stratified(scores.tolist(), 64, np.random.default_rng(1))
    assert len(chosen) == len(set(chosen)) == 64
    deciles = np.bincount((scores[chosen] // 20).astype(int), minlength=10)
    assert deciles.min() >= 5
    assert stratified([1.0, 2.0], 64, np.random.default_rng(1)) == [0, 1]


def test_of_equal_matrices_one_is_tested(learned: nn.Module) -> None:
    names = verify(learned, TRAIN, OTHER, shrinks=(1.0,)).groups
    for layer in range(3):
        here = [name.split(".")[-2] for name in names if f"layers.{layer}." in name]
        assert len(here) == 4
        assert "gate_proj" in here
        for pair in (("q_proj", "k_proj"), ("v_proj", "o_proj"), ("up_proj", "down_proj")):
            assert len(set(pair) & set(here)) == 1


class TwoStreams(nn.Module):
    """Blocks between which the model makes a second tensor, of what they give."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(61, 8)
        self.layers = nn.ModuleList([nn.Sequential(nn.Linear(8, 8)) for _ in range(4)])
        self.head = nn.Linear(8, 61)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        state = aside = self.embedding(input_ids)
        for layer in self.layers:
            state, aside = layer(state) + aside, state.tanh()
        return self.head(state)


def test_losses_after_a_change_need_only_the_later_blocks(learned: nn.Module) -> None:
    losses = ResumedLosses(learned, OTHER)
    assert losses.resumes
    ran: list[int] = []
    hooks = [
        block.mlp.register_forward_hook(lambda *_, i=i: ran.append(i)) for i, block in enumerate(learned.model.layers)
    ]
    weight = learned.model.layers[1].mlp.up_proj.weight
    kept = weight.detach().clone()
    with torch.no_grad():
        weight.mul_(0.3)
    found, expected = losses.after_change(1), answer_losses(learned, OTHER)[0]
    with torch.no_grad():
        weight.copy_(kept)
    for hook in hooks:
        hook.remove()
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert np.abs(found - losses.losses).max() > 1e-4
    assert ran[: 2 * len(OTHER)] == [1, 2] * len(OTHER)
    np.testing.assert_array_equal(answer_losses(learned, OTHER)[0], losses.losses)  # nothing is left behind


def test_what_the_model_does_between_the_blocks_is_done_again() -> None:
    torch.manual_seed(0)
    model = TwoStreams()
    losses = ResumedLosses(model, OTHER)
    assert losses.resumes
    with torch.no_grad():
        model.layers[2][0].weight.mul_(0.3)
    found = losses.after_change(2)
    np.testing.assert_array_equal(found, answer_losses(model, OTHER)[0])
    assert np.abs(found - losses.losses).max() > 1e-4
