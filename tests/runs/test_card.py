"""The card of a run: its figures, its table, and the limits of a team's CI."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from tests.support.plain_text_set import write_plain_text
from tests.support.report_run import write_run
from textkeep.cli.main import main
from textkeep.foundation.errors import UserError
from textkeep.runs import Run
from textkeep.runs.card.card import Card
from textkeep.runs.card.facts import Fact, facts
from textkeep.runs.card.limit import Limit

CHANGES = [0.1, 0.2, -0.05, 0.15] * 10


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_run(tmp_path_factory.mktemp("card") / "mine", steps=(0, 20), items=40, layers=4)
    write_plain_text(folder, CHANGES)
    return folder


def test_the_figures_are_those_of_the_run(run: Path) -> None:
    found = facts(Run.open(run))
    tokens = write_plain_text(run, CHANGES)
    value, low, high = found["text_loss_increase"].limits
    assert value == pytest.approx(np.average(CHANGES, weights=tokens))
    assert low < value < high
    assert found["text_loss_increase/plain_text"].limits == found["text_loss_increase"].limits
    opened = Run.open(run)
    stage = "test" if "test" in opened.evaluations else "val"
    last = opened.evaluations[stage].last
    assert found["speech_accuracy"].limits[0] == last[f"{stage}/speech_accuracy"]
    probe = opened.importance.probes[0]
    (line,) = [row for row in opened.importance.of(probe, opened.importance.pairs[0][1]) if row["step"] == 20]
    js = line["shift"]["metrics"]["js"]
    assert found[f"shift/{probe}"].limits == (js["corrected"], js["low"], js["high"])
    assert next(iter(found)) == "text_loss_increase"


@pytest.mark.parametrize(
    ("text", "broken"),
    [
        ("loss > 0.1", True),
        ("loss > 0.2", False),
        ("loss >= 0.2", True),
        ("loss < 0.2", False),
        ("loss <= 0.2", True),
        ("loss.low > 0.1", False),
        ("loss.high > 0.25", True),
        ("loss.high<1e-1", False),
        ("unknown > 5", True),  # not a number: a limit that cannot be judged is not kept
        ("a/set-1.b > 0", True),
    ],
)
def test_a_limit_is_held_to(text: str, broken: bool) -> None:
    found = {
        "loss": Fact("loss", (0.2, 0.1, 0.3), "here"),
        "unknown": Fact("unknown", (math.nan, math.nan, math.nan), "here"),
        "a/set-1.b": Fact("a/set-1.b", (1.0, 0.5, 1.5), "here"),
    }
    assert Limit.parse(text).broken_by(found) is broken


@pytest.mark.parametrize("text", ["", "loss", "loss = 3", "loss > x", "loss > nan", "> 3", "loss > 3 > 2"])
def test_what_is_no_limit_is_one_line(text: str) -> None:
    with pytest.raises(UserError, match=r"--fail-if .* cannot be read; allowed: NAME > NUMBER"):
        Limit.parse(text)


def test_a_figure_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(UserError, match=r"no figure 'los'; allowed: loss"):
        Limit.parse("los > 3").broken_by({"loss": Fact("loss", (0.2, 0.1, 0.3), "here")})


def test_the_command(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["card", str(run), "--fail-if", "nothing > 1"]) == 2
    assert not (run / "card.md").exists()
    capsys.readouterr()
    assert main(["card", str(run), "--fail-if", "text_loss_increase > 5"]) == 0
    printed = capsys.readouterr().out
    assert (run / "card.md").read_text() + "\n" == printed
    assert "| Plain text: rise of the loss | +0." in printed
    assert "40 passages of plain_text" in printed
    card = json.loads((run / "card.json").read_text())
    assert card["step"] == 20
    assert card["figures"] == Card.of_run(Run.open(run)).as_dict()["figures"]
    assert (
        main(["card", str(run), "--fail-if", "text_loss_increase.low > 0.02", "--fail-if", "speech_accuracy < 0"]) == 1
    )
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("textkeep card: text_loss_increase.low > 0.02: it is 0.")
    assert main(["card", str(run), "-o", str(tmp_path / "new" / "card")]) == 0
    assert main(["card", str(run), "-o", str(tmp_path / "new" / "card")]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main(["card", str(tmp_path)]) == 2
