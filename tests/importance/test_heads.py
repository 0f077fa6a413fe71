"""The overlap of two sets of heads against every set that could have been drawn, and what noise leaves of it."""

from __future__ import annotations

from collections import Counter
from itertools import combinations, product

import numpy as np
import pytest

from textkeep.importance import probe
from textkeep.importance.heads import HeadEffects, default_top, matched_overlaps, overlap_of_heads

from .oracle import make_batch, tiny_llama

LAYERS = np.repeat([0, 1, 2], [4, 3, 5])
HEADS = len(LAYERS)


def drawn_sets(like: list[int]) -> list[set[int]]:
    """Every set with as many heads in each layer as this one."""
    wanted = Counter(LAYERS[like].tolist())
    ways = [combinations(np.flatnonzero(np.equal(LAYERS, layer)).tolist(), wanted[layer]) for layer in (0, 1, 2)]
    return [set().union(*parts) for parts in product(*ways)]


def made(top: list[int], examples: int = 1, noise: float = 0.0, seed: int = 0) -> HeadEffects:
    """Heads of which these matter, the first most; with noise by example."""
    means = np.full(HEADS, -1.0)
    means[top] = np.arange(len(top), 0, -1)
    drawn = np.random.default_rng(seed).normal(0.0, noise, (examples, HEADS)) if noise else 0.0
    return HeadEffects([f"h{i}" for i in range(HEADS)], LAYERS, np.tile(means, (examples, 1)) + drawn)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ([0, 1, 5], [0, 2, 6]),
        ([0, 4, 7], [7, 8, 9]),
        ([0, 1, 2, 3], [0, 4, 8, 11]),  # all of a layer: what lies in it is shared for sure
        ([0, 1], [5, 6]),  # no layer in common: nothing can be shared
        ([7, 8, 9, 10, 0], [11, 10, 9, 1, 2]),
    ],
)
def test_chance_is_that_of_every_set_that_could_be_drawn(first: list[int], second: list[int]) -> None:
    sets = drawn_sets(second)
    counts = Counter(len(set(first) & drawn) for drawn in sets)
    wanted = np.array([counts[n] / len(sets) for n in range(len(first) + 1)])
    np.testing.assert_allclose(matched_overlaps(np.array(first), np.array(second), LAYERS), wanted, atol=1e-12)
    found = overlap_of_heads(made(first), made(second), len(first))
    shared = len(set(first) & set(second))
    assert found.chance.mean == pytest.approx(wanted @ np.arange(len(wanted)))
    assert found.chance.p == pytest.approx(wanted[shared:].sum())
    assert found.chance.p_floor == pytest.approx(wanted[max(counts)])
    overlaps = sorted(len(set(first) & drawn) for drawn in sets)
    assert found.chance.low == np.quantile(overlaps, 0.05, method="inverted_cdf")
    assert found.chance.high == np.quantile(overlaps, 0.95, method="inverted_cdf")
    assert found.chance.anywhere == pytest.approx(
        np.mean([len(set(first) & set(other)) for other in combinations(range(HEADS), len(second))])
    )


def test_the_sets_are_named_by_importance() -> None:
    found = overlap_of_heads(made([5, 1, 0]), made([1, 9, 5]), 3)
    assert (found.shared, found.only_first, found.only_second) == (["h5", "h1"], ["h0"], ["h9"])
    assert found.halves is None  # of one example
    assert overlap_of_heads(made([5, 1, 0]), made([5, 1, 0]), 2).correlation == pytest.approx(1.0)


def test_halves_tell_noise_from_other_heads() -> None:
    """Heads that differ are never shared; heads that are the same are, as far as each measurement finds its own."""
    sure = [made([0, 1, 5], 16), made([2, 3, 6], 16)]
    found = overlap_of_heads(*sure, 3).halves
    assert found is not None
    assert (found.first, found.second, found.across, found.across_high) == (3, 3, 0, 0)
    noisy = [made([0, 1, 5], 16, noise=8.0, seed=seed) for seed in (0, 1)]
    found = overlap_of_heads(*noisy, 3).halves
    assert found is not None
    assert 0.2 < found.across < 2.8
    assert abs(found.across - (found.first + found.second) / 2) < 0.8
    assert found.across_low <= found.across <= found.across_high


def test_the_same_examples_never_meet_themselves_across() -> None:
    """Two measurements whose noise by example is the same: what they share across is no more than within."""
    same = made([0, 1, 5], 16, noise=8.0)
    found = overlap_of_heads(same, same, 3).halves
    assert found is not None
    assert found.across == found.first == found.second


def test_effects_and_their_limits_are_those_of_the_snapshot() -> None:
    model = tiny_llama(layers=3)
    batches = [make_batch(4, seed=1, padded=True), make_batch(3, seed=2)]
    snapshot = probe(model, batches, ("ablation",), ablate="head")
    found = HeadEffects.of(snapshot)
    assert found.effects.shape == (7, 12)
    assert found.layers.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert found.means.tolist() == snapshot.effects("ablation").tolist()
    low, high = found.limits()
    assert (low < found.means).all()
    assert (found.means < high).all()
    with pytest.raises(ValueError, match="holds no heads; allowed: estimator ablation with ablate=head"):
        HeadEffects.of(probe(model, batches, ("ablation",), ablate="layer"))


def test_what_cannot_be_compared_is_one_line() -> None:
    other = HeadEffects(["a"], LAYERS[:1], np.zeros((1, 1)))
    with pytest.raises(ValueError, match="of other heads: models of other architectures or sizes"):
        overlap_of_heads(made([0]), other, 1)
    with pytest.raises(ValueError, match="13 top heads of 12; allowed: 1 to 12"):
        overlap_of_heads(made([0]), made([0]), 13)
    assert [default_top(heads) for heads in (4, 270, 1024)] == [1, 27, 102]
