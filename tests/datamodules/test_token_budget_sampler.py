from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from textkeep.datamodules.batches.token_budget_sampler import TokenBudgetSampler

CASES = list(itertools.product([1, 7, 64, 501], [1, 2, 3, 8], [None, 5], [0, 1]))


def plan(count: int, world: int, max_examples: int | None, seed: int, **options: Any) -> list[TokenBudgetSampler]:
    """The samplers of all ranks, over log-normal lengths of two kinds."""
    lengths = np.random.default_rng(seed).lognormal(4, 0.7, count).astype(int).clip(1, 900)
    kinds = ["speech" if i % 3 else "text" for i in range(count)]
    return [
        TokenBudgetSampler(lengths.tolist(), 1000, max_examples, kinds, seed, rank=rank, world_size=world, **options)
        for rank in range(world)
    ]


@pytest.mark.parametrize(("count", "world", "max_examples", "seed"), CASES)
def test_training_plan_keeps_its_promises(count: int, world: int, max_examples: int | None, seed: int) -> None:
    samplers = plan(count, world, max_examples, seed)
    first = samplers[0]
    for epoch in range(3):
        ranks = [sampler.batches(epoch) for sampler in samplers]
        assert {len(batches) for batches in ranks} == {len(first)}  # every rank, every epoch
        for step in zip(*ranks, strict=True):
            assert len({first._kinds[i] for batch in step for i in batch}) == 1  # the same kind on all ranks
        batches = [batch for rank in ranks for batch in rank]
        for batch in batches:
            assert 0 < len(batch) <= (max_examples or count)
            assert len(batch) * first.lengths[batch].max() <= 1000
        assert {i for batch in batches for i in batch} == set(range(count))  # nothing is lost
        repeated = sum(len(batch) for batch in batches) - count
        assert repeated == 0 or (repeated <= 2 * (world - 1) and all(len(batch) == 1 for batch in batches))


@pytest.mark.parametrize(("count", "world", "max_examples", "seed"), CASES)
def test_evaluation_gives_every_example_once(count: int, world: int, max_examples: int | None, seed: int) -> None:
    ranks = [sampler.batches(0) for sampler in plan(count, world, max_examples, seed, shuffle=False, repeat=False)]
    assert sorted(i for rank in ranks for batch in rank for i in batch) == list(range(count))
    counts = [len(rank) for rank in ranks]
    assert max(counts) - min(counts) <= 2  # at most one for each kind
    if count > 10 * world:
        assert max(counts) == min(counts)


@pytest.mark.parametrize(("count", "world", "max_examples", "seed"), CASES)
def test_without_shuffling_every_rank_still_trains_equally_often(
    count: int, world: int, max_examples: int | None, seed: int
) -> None:
    samplers = plan(count, world, max_examples, seed, shuffle=False)
    assert len({len(sampler.batches(0)) for sampler in samplers}) == 1  # else DDP would wait for ever
    assert samplers[0].batches(0) == samplers[0].batches(1)


def test_epochs_differ_and_repeat_exactly() -> None:
    (sampler,) = plan(200, 1, None, 0)
    first, second = sampler.batches(0), sampler.batches(1)
    assert first != second
    assert {frozenset(batch) for batch in first} != {frozenset(batch) for batch in second}  # members, not only order
    assert first == plan(200, 1, None, 0)[0].batches(0)
    sampler.set_epoch(1)
    assert list(sampler) == second
    other_seed = TokenBudgetSampler(sampler.lengths.tolist(), 1000, seed=9)
    assert other_seed.batches(0) != first


def test_padding_is_small_where_there_are_many_examples() -> None:
    lengths = np.random.default_rng(0).integers(20, 200, 5000)
    sampler = TokenBudgetSampler(lengths.tolist(), 4000)
    padded = sum(len(batch) * lengths[batch].max() for batch in sampler.batches(0))
    assert lengths.sum() / padded > 0.93
    assert len(sampler) <= 1.15 * lengths.sum() / 4000


def test_ranks_get_batches_of_similar_length() -> None:
    lengths = np.random.default_rng(0).integers(20, 200, 2000)
    a, b = (TokenBudgetSampler(lengths.tolist(), 2000, rank=rank, world_size=2).batches(0) for rank in range(2))
    ratios = [lengths[x].max() / lengths[y].max() for x, y in zip(a, b, strict=True)]
    assert min(ratios) > 0.75
    assert max(ratios) < 1.3


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="tokens_per_batch: 10 is less than the 11 tokens of example 1"):
        TokenBudgetSampler([3, 11], 10)
    with pytest.raises(ValueError, match="max_examples_per_batch: 0"):
        TokenBudgetSampler([3], 10, max_examples=0)
    with pytest.raises(ValueError, match="rank 2 of 2"):
        TokenBudgetSampler([3], 10, rank=2, world_size=2)


def test_no_examples_make_no_batches() -> None:
    assert len(TokenBudgetSampler([], 10)) == 0


def test_sixty_thousand_examples_are_planned_quickly() -> None:
    import time

    lengths = np.random.default_rng(0).integers(20, 200, 60000).tolist()
    start = time.process_time()
    assert len(TokenBudgetSampler(lengths, 4000)) > 1000
    assert time.process_time() - start < 2
