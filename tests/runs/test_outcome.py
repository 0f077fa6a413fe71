"""The first screen of a page that compares runs: text lost or kept, equally good at speech or not."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import unescape
from pathlib import Path

import pytest
from scipy.stats import binomtest

from tests.runs.test_report import figures_of
from tests.support.plain_text_set import write_plain_text
from tests.support.report_run import write_run
from textkeep.cli.main import main
from textkeep.evaluation import Prediction, mcnemar, paired_difference, store_evaluation
from textkeep.runs import open_runs
from textkeep.runs.report.numbers import NATS, mcnemar_words, number
from textkeep.runs.report.outcome import Outcome, outcome_lines, outcomes, speech_finding, text_finding

PASSAGES = 40


def answered(folder: Path, right: Sequence[bool], stage: str = "test", step: int = 20) -> Path:
    """Spoken questions beside the run's own plain text: ``right`` says which were answered."""
    part = folder / "evaluation" / "test" if stage == "test" else folder / "evaluation"
    records = [Prediction(f"q{i:03d}", "speech", prediction="x", correct=good) for i, good in enumerate(right)]
    store_evaluation(part, stage, step, records, seconds=1.0)
    return folder


def pair(folder: Path, ours: Sequence[bool], theirs: Sequence[bool]) -> list[Outcome]:
    return outcomes(open_runs([answered(folder / "full", theirs), answered(folder / "kept", ours)]))


def topic(found: list[Outcome]) -> str:
    finding = speech_finding(found[1], found[0])
    assert finding
    return finding.topic


def test_text_lost_is_the_mean_over_tokens_and_text_kept_is_exact(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name, steps=(0, 20), items=20, layers=2) for name in ("full", "gated")]
    changes = [0.05 + 0.01 * i for i in range(PASSAGES)]
    tokens = write_plain_text(runs[0], changes)
    write_plain_text(runs[1], [0.0] * PASSAGES)
    full, gated = outcomes(open_runs(runs))
    mean = sum(c * t for c, t in zip(changes, tokens, strict=True)) / sum(tokens)
    assert full.text
    assert gated.text
    assert gated.text.against
    assert full.text.cost[0] == pytest.approx(mean)
    assert full.text.cost[1] < mean < full.text.cost[2]
    assert (full.text.passages, full.text.source, full.text.against) == (PASSAGES, "plain_text", None)
    assert gated.text.against[0] == pytest.approx(-mean)
    lost, kept = text_finding(full), text_finding(gated)
    assert lost
    assert kept
    assert (lost.topic, lost.mark) == ("Text lost", "bad")
    assert lost.text.startswith(f"+{mean:.3g} [")
    assert (kept.topic, kept.mark) == ("Text kept", "same")
    assert "to the last digit" in kept.text


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ([0.1, -0.1] * 20, ("Text kept?", "open")),
        ([-0.1, -0.2] * 20, ("Text kept", "good")),
        ([1e-9] + [0.0] * 39, ("Text kept?", "open")),
        ([0.01, 0.02] * 20, ("Text lost", "bad")),
    ],
)
def test_an_interval_decides_whether_text_was_lost(
    tmp_path: Path, changes: list[float], expected: tuple[str, str]
) -> None:
    run = write_run(tmp_path / "run", steps=(0, 20), items=20, layers=2, parts=("evaluation",))
    write_plain_text(run, changes)
    finding = text_finding(outcomes(open_runs([run]))[0])
    assert finding
    assert (finding.topic, finding.mark) == expected
    assert ("no loss is established" in finding.text) == (expected[1] == "open")


def test_hearing_is_judged_by_interval_and_paired_test(tmp_path: Path) -> None:
    right = [i % 3 == 0 for i in range(200)]
    swapped = [not good if i in (1, 2, 3, 6) else good for i, good in enumerate(right)]  # two gained, two lost
    assert topic(pair(tmp_path / "equal", swapped, right)) == "Equally good at speech"
    assert topic(pair(tmp_path / "few", swapped[:20], right[:20])) == "Equally good at speech?"
    more = [good or i % 4 == 1 for i, good in enumerate(right)]
    found = pair(tmp_path / "more", more, right)
    assert topic(found) == "Better at speech"
    assert topic(pair(tmp_path / "less", right, more)) == "Worse at speech"
    gained = sum(more) - sum(right)
    assert found[1].speech
    assert found[1].speech.against
    assert found[0].speech
    (difference, low, high), test = found[1].speech.against
    assert difference == pytest.approx(gained / 200)
    assert low > 0
    assert high > difference
    assert (test.gained, test.lost) == (gained, 0)
    assert found[0].speech.against is None
    # Three gained of 80 and none lost: the test finds no difference, and the interval no loss worth the name.
    few = [good or i in (1, 2, 4) for i, good in enumerate(right[:80])]
    assert topic(pair(tmp_path / "no worse", few, right[:80])) == "No worse at speech"
    assert topic(pair(tmp_path / "lost", right[:80], few)) == "Equally good at speech?"
    # A loss that the test finds small and the interval cannot bound is neither.
    some = [good and i not in (0, 3) for i, good in enumerate(right[:40])]
    words = speech_finding(*reversed(pair(tmp_path / "some", some, right[:40])))
    assert words
    assert words.mark == "open"
    assert f"McNemar p = {binomtest(2, 2).pvalue:.2g}" in words.text


def test_where_interval_and_exact_test_part_a_clause_says_why() -> None:
    """The README's 12 gained and 4 lost of 80; of many that differ both are the score test's, and never part."""
    words = {}
    for lost, gained in ((4, 12), (4, 4), (1, 12), (10, 18), (10, 22), (13, 27)):
        before = [True] * lost + [False] * gained + [True] * (80 - lost - gained)
        after = [False] * lost + [True] * gained + [True] * (80 - lost - gained)
        words[lost, gained] = mcnemar_words(paired_difference(before, after), mcnemar(before, after))
    assert words.pop((4, 12)) == "McNemar p = 0.077 (exact, stricter than the interval)"
    assert not [text for text in words.values() if "exact" in text]


def test_only_questions_of_both_are_compared_and_only_a_stage_of_both(tmp_path: Path) -> None:
    first = answered(tmp_path / "first", [True, False] * 30)
    second = answered(tmp_path / "second", [False, True] * 20)
    found = outcomes(open_runs([first, second]))
    assert found[1].speech
    assert found[1].speech.against
    assert found[1].speech.stage == "test"
    assert found[1].speech.against[1].lost + found[1].speech.against[1].gained == 40
    answered(first, [True] * 10, "val")
    third = answered(tmp_path / "third", [True] * 10, "val")
    assert [one.speech and one.speech.stage for one in outcomes(open_runs([first, third]))] == ["val", "val"]
    assert [one.speech for one in outcomes(open_runs([second, third]))] == [None, None]


def test_the_page_begins_with_it_and_the_console_says_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [write_run(tmp_path / name, steps=(0, 20), items=40, layers=2) for name in ("full", "gated")]
    assert main(["report", *map(str, runs), "-o", str(tmp_path / "without.html")]) == 0
    assert "cost" not in figures_of(tmp_path / "without.html")
    write_plain_text(runs[0], [0.1, 0.2] * 20)
    write_plain_text(runs[1], [0.0] * PASSAGES)
    capsys.readouterr()
    assert main(["report", *map(str, runs), "-o", str(tmp_path / "page.html")]) == 0
    said = capsys.readouterr().out
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    drawn = figures_of(tmp_path / "page.html")["cost"][""]["data"]
    found = outcomes(open_runs(runs))
    assert [point["name"] for point in drawn] == ["untouched LLM", "full", "gated"]
    assert [point["x"][0] for point in drawn[1:]] == pytest.approx(
        [one.text.cost[0] for one in found if one.text], rel=1e-4
    )
    assert [point["y"][0] for point in drawn[1:]] == pytest.approx(
        [100 * one.speech.right[0] for one in found if one.speech]
    )
    cards = re.findall(r'<article class="card (\w+)">(.*?)</article>', text, re.DOTALL)
    assert [mark for mark, _ in cards] == ["bad", "same", "good"]
    shown = unescape(" ".join(body for _, body in cards))
    for line in outcome_lines(found):
        assert line in said
    for finding in (text_finding(found[0]), text_finding(found[1]), speech_finding(found[1], found[0])):
        assert finding
        assert finding.text in shown
    assert text.index('id="outcome"') < text.index('id="verdict"')
    figure = number(*found[0].text.cost, signed=True) if found[0].text else ""
    assert said.count(figure) == 1  # the sentence of a run has no figure that stands above it
    headlines = re.findall(r'<p class="headline">(.*?)</p>', text)
    assert not any("nats" in words for words in headlines)
    assert unescape(text).count(NATS) == 1
    assert text.index('id="outcome"') < unescape(text).index(NATS)
    assert main(["report", str(runs[0])]) == 0
    alone = unescape((runs[0] / "report.html").read_text(encoding="utf-8"))
    assert 'id="outcome"' not in alone
    assert alone.count(NATS) == 1
    assert "full: Text lost: +" in capsys.readouterr().out
