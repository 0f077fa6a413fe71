from __future__ import annotations

import math

import pytest

from textkeep.evaluation import holm, mcnemar, shown_p
from textkeep.evaluation.paired_tests import FEW_DISCORDANT


def table(both: int, lost: int, gained: int, neither: int) -> tuple[list[bool], list[bool]]:
    """Items of a two by two table: (before, after)."""
    before = [True] * (both + lost) + [False] * (gained + neither)
    after = [True] * both + [False] * lost + [True] * gained + [False] * neither
    return before, after


def test_mcnemar_gives_the_published_exact_p_value() -> None:
    # The standard example of 161 subjects, discordant 6 and 16: exact two-sided p = 0.0525 (mid-p 0.035).
    result = mcnemar(*table(59, 6, 16, 80))
    assert result[:2] == (6, 16)
    assert result.exact
    assert result.p_value == pytest.approx(2 * sum(math.comb(22, k) for k in range(7)) / 2**22)
    assert result.p_value == pytest.approx(0.0525, abs=5e-5)


def test_mcnemar_gives_both_published_p_values_of_airway_hyperresponsiveness() -> None:
    # Fagerland, Lydersen and Laake 2013, BMC Med Res Methodol 13:91, tables 1 and 6 (data of Bentur et al. 2009):
    # 21 children, discordant 1 and 7; exact conditional p = 0.070, asymptotic p = 0.034.
    items = table(1, 1, 7, 12)
    assert mcnemar(*items).p_value == pytest.approx(0.070, abs=5e-4)
    assert mcnemar(*items, exact=False).p_value == pytest.approx(0.034, abs=5e-4)


def test_mcnemar_takes_the_chi_square_form_for_many_discordant_items() -> None:
    # Agresti, Categorical Data Analysis, approval of the prime minister: 1600 people, discordant 150 and 86;
    # z squared = (86 - 150)^2 / (86 + 150) = 17.36.
    result = mcnemar(*table(794, 150, 86, 570))
    assert result[:2] == (150, 86)
    assert not result.exact
    assert result.p_value == pytest.approx(math.erfc(math.sqrt(64**2 / 236 / 2)))
    assert result.p_value == pytest.approx(3.1e-5, abs=5e-7)


def test_the_two_forms_meet_at_the_boundary() -> None:
    below, above = table(5, 5, FEW_DISCORDANT - 6, 5), table(5, 5, FEW_DISCORDANT - 5, 5)
    assert mcnemar(*below).exact
    assert not mcnemar(*above).exact
    assert mcnemar(*above).p_value == pytest.approx(mcnemar(*above, exact=True).p_value, abs=0.003)


def test_mcnemar_without_discordant_items() -> None:
    assert mcnemar([True, False], [True, False]).p_value == 1.0
    assert mcnemar(*table(0, 2, 2, 0)).p_value == 1.0
    with pytest.raises(ValueError, match="paired items"):
        mcnemar([True], [True, False])


def test_holm_gives_the_textbook_adjustment() -> None:
    # Four hypotheses of the usual worked example; adjusted = running maximum of (m - rank) p.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_a_p_value_of_resampling_says_its_floor() -> None:
    assert [shown_p(p, 0.0002) for p in (0.0002, 0.00041, 0.5)] == ["<= 0.0002", "0.00041", "0.5"]
    assert shown_p(1.0, 1.0) == "1"  # one example can be exchanged in one way only
    assert [shown_p(p) for p in (0.0, 3e-9, 0.034)] == ["< 0.0001", "< 0.0001", "0.034"]
