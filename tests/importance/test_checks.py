"""Removal, faithfulness, attribution and structure on a tiny model that has learned something."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from textkeep.importance import probe
from textkeep.importance.attribution import attribute
from textkeep.importance.evaluate import answer_losses, perplexity
from textkeep.importance.faithfulness import verify
from textkeep.importance.removal import removal_test
from textkeep.importance.structure import change_overlap, entropy, gini, line_share, permuted, stable_rank, structure

from .oracle import example_loss, make_batch, tiny_llama

TRAIN = [make_batch(8, seed=s) for s in range(3)]
OTHER = [make_batch(8, seed=s) for s in range(10, 12)]


def fit(model: torch.nn.Module, data: list[dict], steps: int, lr: float = 3e-3) -> torch.nn.Module:
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    model.train()
    for step in range(steps):
        batch = data[step % len(data)]
        optimizer.zero_grad()
        model(**{k: v for k, v in batch.items() if k != "ids"}, use_cache=False).loss.backward()
        optimizer.step()
    optimizer.zero_grad()
    return model.eval()


@pytest.fixture(scope="module")
def learned() -> torch.nn.Module:
    return fit(tiny_llama(tied=True, layers=3).float(), TRAIN, 120)


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters()}


def assert_unchanged(model: torch.nn.Module, before: dict[str, torch.Tensor]) -> None:
    for name, value in model.named_parameters():
        assert torch.equal(value, before[name]), name


def test_losses_without_gradients_equal_the_loop(learned: torch.nn.Module) -> None:
    batch = make_batch(4, seed=2, padded=True)
    losses, tokens = answer_losses(learned, [batch])
    expected = [float(example_loss(learned, batch, row)) for row in range(4)]
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    assert perplexity(losses, tokens) == pytest.approx(np.exp((losses * tokens).sum() / tokens.sum()))


@pytest.mark.parametrize("scope", ["matrix", "layer", "global"])
def test_removal_orders_top_random_bottom_and_restores(learned: torch.nn.Module, scope: str) -> None:
    before = weights(learned)
    test = removal_test(learned, TRAIN, {"text": TRAIN, "other": OTHER}, fraction=0.05, scope=scope)
    assert_unchanged(learned, before)
    assert test.ordered["text"]
    loss = {(r.removed, r.data): r for r in test.rows}
    assert loss["none", "text"].increase == 0.0
    assert loss["top", "text"].low > loss["bottom", "text"].high


def test_removal_restores_after_an_error(learned: torch.nn.Module) -> None:
    before = weights(learned)

    def interrupt(message: str) -> None:
        if message.startswith("random"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        removal_test(learned, TRAIN[:1], {"text": TRAIN[:1]}, progress=interrupt)
    assert_unchanged(learned, before)


def test_removal_of_an_adapted_model_zeroes_the_effective_weight(learned: torch.nn.Module) -> None:
    from peft import LoraConfig, get_peft_model

    from textkeep.importance.edits import zeroed
    from textkeep.importance.sites import find_sites

    model = get_peft_model(copy.deepcopy(learned), LoraConfig(r=2, target_modules="all-linear"))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    before = weights(model)
    sites = dict(enumerate(find_sites(model).sites))
    masks = {i: torch.rand(s.shape) < 0.2 for i, s in sites.items()}
    with zeroed(sites, masks):
        for index, site in sites.items():
            assert site.weight()[masks[index]].abs().max() < 1e-6
    assert_unchanged(model, before)


@pytest.mark.parametrize("granularity", ["matrix", "head"])
def test_scores_foretell_effects_better_than_chance(learned: torch.nn.Module, granularity: str) -> None:
    before = weights(learned)
    result = verify(learned, TRAIN, TRAIN, granularity=granularity, groups=20, shrinks=(1.0,))
    assert_unchanged(learned, before)
    found = {r.score: r for r in result.results}
    assert found["taylor"].spearman > 0.4
    assert found["taylor"].low <= found["taylor"].spearman <= found["taylor"].high
    assert abs(found["random"].spearman) < 0.6
    assert found["taylor"].worst_missed <= found["taylor"].worst
    assert 0 <= found["fisher"].precision <= 1
    assert len(result.groups) == len(result.effects[1.0]) <= 21
    assert result.reliability["taylor"] > 0.5


def test_attribution_is_complete_and_reverting_gives_the_loss_back(learned: torch.nn.Module) -> None:
    base = weights(learned)
    tuned = fit(copy.deepcopy(learned), OTHER, 10)
    after = weights(tuned)
    result = attribute(tuned, base, TRAIN)
    assert_unchanged(tuned, after)
    assert all(p.grad is None for p in tuned.parameters())
    assert result.loss_after > result.loss_before
    assert abs(result.completeness_error) < 0.05
    assert sum(result.parameters.values()) == pytest.approx(
        (result.loss_after - result.loss_before) * (1 + result.completeness_error), rel=1e-4
    )
    assert sum(result.layers.values()) == pytest.approx(sum(result.parameters.values()))
    assert result.reverts[-1].recovered > 0
    with pytest.raises(ValueError, match="nothing to attribute"):
        attribute(tuned, after, TRAIN)


def test_attribution_doubles_its_nodes_until_complete(learned: torch.nn.Module) -> None:
    tuned = fit(copy.deepcopy(learned), OTHER, 40, lr=2e-2)
    said: list[str] = []
    result = attribute(tuned, weights(learned), TRAIN, nodes=1, reverts=0, progress=said.append)
    assert result.nodes > 1
    assert any("doubling" in message for message in said)


def test_measures_of_concentration() -> None:
    assert gini(np.ones(10)) == pytest.approx(0.0)
    assert gini(np.eye(10)[0]) == pytest.approx(0.9)
    assert entropy(np.ones(10)) == pytest.approx(1.0)
    assert entropy(np.eye(10)[0]) == pytest.approx(0.0)
    assert stable_rank(torch.eye(6)) == pytest.approx(6.0)
    assert stable_rank(torch.outer(torch.arange(4.0), torch.ones(5))) == pytest.approx(1.0)
    mask = torch.zeros(40, 60, dtype=torch.bool)
    mask[3], mask[:, 7] = True, True
    assert line_share(mask) == 1.0
    assert line_share(permuted(mask)) < 0.35
    assert permuted(mask).sum() == mask.sum()


def test_structure_uses_what_the_snapshot_has(learned: torch.nn.Module) -> None:
    lean = structure(probe(learned, TRAIN, "taylor"))
    assert lean[0].line_share is None
    full = structure(probe(learned, TRAIN, "taylor", top_fraction=0.05, keep_maps=("taylor",)))
    assert full[0].gini_rows == pytest.approx(lean[0].gini_rows, rel=1e-6)
    assert full[0].line_share > full[0].line_share_chance
    assert 1 <= full[0].stable_rank <= 24


def test_change_overlap_sees_a_change_on_important_lines(learned: torch.nn.Module) -> None:
    snapshot = probe(learned, TRAIN, "taylor")
    deltas = {
        m.name: torch.from_numpy(np.outer(snapshot.rows["taylor"][i], snapshot.columns["taylor"][i]))
        for i, m in enumerate(snapshot.table)
    }
    for overlap in change_overlap(snapshot, deltas, rank=2):
        assert overlap.rows == pytest.approx(1.0)
        assert overlap.columns == pytest.approx(1.0)
        assert overlap.baseline < 0.7
        assert overlap.random_rows < 0.9
