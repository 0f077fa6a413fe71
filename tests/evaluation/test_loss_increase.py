from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from textkeep.evaluation import loss_increase


def test_it_is_the_difference_per_token_and_does_not_depend_on_the_order() -> None:
    before = {"a": (10.0, 4), "b": (30.0, 16), "c": (7.0, 2)}
    after = {"c": (7.5, 2), "a": (12.0, 4), "b": (29.0, 16)}
    found = loss_increase(before, after)
    assert found.before == pytest.approx(47.0 / 22)
    assert found.loss == pytest.approx(48.5 / 22)
    assert found.increase.estimate == pytest.approx(1.5 / 22)  # not the mean of the texts' means, which is 0.2296
    assert found.increase == loss_increase(dict(reversed(before.items())), after).increase


def test_it_is_paired_the_difficulty_of_a_text_is_not_in_the_interval() -> None:
    rng = np.random.default_rng(0)
    tokens = 50
    before = {str(i): (float(total), tokens) for i, total in enumerate(rng.normal(150, 60, 200))}
    rise = rng.normal(1.0, 0.5, 200)
    after = {key: (total + float(r), tokens) for (key, (total, _)), r in zip(before.items(), rise, strict=True)}
    low, high = loss_increase(before, after).increase[1:]
    half = stats.t.ppf(0.975, 199) * rise.std(ddof=1) / np.sqrt(200) / tokens
    assert (high - low) / 2 == pytest.approx(half, rel=0.1)


def test_without_a_change_it_is_zero() -> None:
    before = {str(i): (100.0 + i, 40) for i in range(40)}
    assert loss_increase(before, before).increase == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("after", [{}, {"b": (1.0, 2)}, {"a": (1.0, 3)}])
def test_other_texts_are_refused(after: dict[str, tuple[float, int]]) -> None:
    with pytest.raises(ValueError, match="the same texts"):
        loss_increase({"a": (1.0, 2)}, after)
