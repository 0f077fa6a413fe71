"""The rank correlation of a gradient's scores with real effects, by scipy; and what an ablation finds without cost."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import spearmanr

from textkeep.importance import Snapshot, probe
from textkeep.importance.agreement import agreement, costless

from .oracle import make_batch, tiny_llama

BATCHES = [make_batch(4, seed=1, padded=True), make_batch(3, seed=2)]


def snapshot(seed: int = 0, **options: str) -> Snapshot:
    found = probe(tiny_llama(layers=5, seed=seed), BATCHES, ("taylor", "ablation"), **options)
    generator = np.random.default_rng(seed)
    noise = generator.normal(0.0, 0.8, size=found.examples["ablation"].shape)
    found.examples["ablation"] = found.examples["ablation"] + noise  # effects of either sign
    return found


def by_layer(found: Snapshot, values: np.ndarray, estimator: str) -> np.ndarray:
    units = zip(values, found.units(estimator), strict=True)
    counted = [(v, u) for v, u in units if estimator == "taylor" or u.equal_to is None]
    return np.array([sum(v for v, u in counted if u.layer == layer) for layer in range(5)])


@pytest.mark.parametrize("ablate", ["layer", "matrix"])
def test_now_and_moved_by_scipy(ablate: str) -> None:
    before, after = snapshot(0, ablate=ablate), snapshot(1, ablate=ablate)
    found = agreement(after, "taylor", before)
    assert found is not None
    sides = {}
    for name, side in (("before", before), ("after", after)):
        means = {e: side.examples[e].mean(0) for e in ("taylor", "ablation")}
        effects = by_layer(side, means["ablation"], "ablation")
        assert (side.examples["ablation"].mean(0) < 0).any()
        positive = by_layer(before, np.maximum(means["ablation"], 0), "ablation")
        taylor = by_layer(side, means["taylor"], "taylor")
        sides[name] = taylor, effects, taylor / taylor.sum(), positive / positive.sum()
    first, second = sides["before"], sides["after"]
    assert found.now.value == pytest.approx(spearmanr(second[0], second[1]).statistic)
    moved = spearmanr(second[2] - first[2], second[3] - first[3]).statistic
    assert found.moved is not None
    assert found.moved.value == pytest.approx(moved)
    assert found.now.low < found.now.value < found.now.high or abs(found.now.value) == 1


def test_a_steady_order_has_a_narrow_interval_and_an_accident_a_wide_one() -> None:
    found = snapshot()
    scores = np.tile(np.arange(1.0, 6.0), (7, 1))
    found.examples["ablation"] = scores - 3.5
    steady = found.examples["taylor"] * 0
    owner = [unit.layer for unit in found.table]
    steady += scores[:, owner]
    found.examples["taylor"] = steady
    same = agreement(found, "taylor")
    assert same is not None
    assert (same.now.value, same.now.low, same.now.high) == (1.0, 1.0, 1.0)
    found.examples["ablation"] = np.random.default_rng(0).normal(size=scores.shape)
    wide = agreement(found, "taylor")
    assert wide is not None
    assert wide.now.high - wide.now.low > 0.5


def test_the_order_of_the_examples_does_not_matter() -> None:
    before, after = snapshot(0), snapshot(1)
    plain = agreement(after, "taylor", before)
    order = np.random.default_rng(1).permutation(7)
    after.meta["probe"]["ids"] = [after.ids[i] for i in order]
    after.examples = {name: values[order] for name, values in after.examples.items()}
    mixed = agreement(after, "taylor", before)
    assert plain is not None
    assert mixed is not None
    assert mixed.moved == plain.moved


def test_nothing_is_compared_with_itself_or_without_an_ablation() -> None:
    found = snapshot()
    assert agreement(found, "ablation") is None
    assert agreement(probe(tiny_llama(), BATCHES, "taylor"), "taylor") is None
    without = probe(tiny_llama(layers=5), BATCHES, "taylor")
    beside = agreement(found, "taylor", without)
    assert beside is not None
    assert beside.moved is None


def test_what_costs_nothing_is_counted_once() -> None:
    found = snapshot()
    found.examples["ablation"] = np.tile([3.0, -1.0, 0.0, 4.0, -2.0], (7, 1))
    assert costless(found, "ablation") == (3, 5, 0.3)
    found.groups["ablation"][4] = replace(found.groups["ablation"][4], equal_to="layer_01")
    assert costless(found, "ablation") == (2, 4, 0.125)
