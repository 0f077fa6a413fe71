"""Every estimator in every setting against the float64 per-example loop: one cell each.

Rows, columns, heads, totals, per-example scores and single weights are compared; the error is relative to the largest
value of the matrix. The settings are in ``settings.py``, the loops in ``oracle.py``, the two ranks in ``two_ranks.py``.
"""

from __future__ import annotations

import pytest

from .oracle import ALL, error
from .settings import ONE_PROCESS, measured
from .two_ranks import TWO_RANKS, errors_of_two_ranks

EXACT = 1e-10
LIMITS = {"float32": 1e-5, "bfloat16 autocast": 0.1}  # bfloat16 has eight bits: 6 % seen in squares of gradients
ESTIMATORS = ("taylor", "taylor_batch", "signed_taylor", "fisher", "fisher_sampled", "wanda", "magnitude")


def test_the_grid_is_whole() -> None:
    assert set(ESTIMATORS) == set(ALL)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("setting", ONE_PROCESS)
def test_one_process(setting: str, estimator: str) -> None:
    snapshots, truth = measured(setting)
    whole, *alone = [s for s in snapshots if estimator in s.estimators]
    assert whole.rows[estimator]
    assert alone or setting == "tied embeddings"
    for snapshot in (whole, *alone):
        assert error(snapshot, truth, estimator) <= LIMITS.get(setting, EXACT)


@pytest.fixture(scope="module")
def both_ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, float]]]:
    return errors_of_two_ranks(tmp_path_factory.mktemp("two_ranks"))


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("setting", TWO_RANKS)
def test_two_ranks(setting: str, estimator: str, both_ranks: list[dict[str, dict[str, float]]]) -> None:
    for errors in both_ranks:
        assert errors[setting][estimator] <= EXACT


@pytest.mark.slow
@pytest.mark.parametrize("setting", TWO_RANKS)
def test_training_on_two_ranks_is_bit_identical(setting: str, both_ranks: list[dict[str, dict[str, float]]]) -> None:
    assert [errors[setting]["training"] for errors in both_ranks] == [0.0, 0.0]


@pytest.mark.slow
@pytest.mark.parametrize("setting", TWO_RANKS)
def test_ablation_on_two_ranks(setting: str, both_ranks: list[dict[str, dict[str, float]]]) -> None:
    assert max(errors[setting]["ablation"] for errors in both_ranks) <= 1e-12
