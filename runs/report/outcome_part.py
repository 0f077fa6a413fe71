"""The first screen of a page that compares runs: one card per figure, and one picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from ..run import Run
from .figures.cost import cost as picture
from .figures.figure import Figure
from .finding import Finding
from .numbers import NATS, number
from .outcome import Outcome, outcomes, speech_finding, text_finding
from .page import part


@dataclass(frozen=True)
class Card:
    """One figure, large.

    Attributes:
        runs: Indices of the runs it describes.
        title: Their names.
        figure: The figure.
        unit: Of it.
        finding: What it means.
    """

    runs: tuple[int, ...]
    title: str
    figure: str
    unit: str
    finding: Finding


@dataclass(frozen=True)
class FirstScreen:
    """The beginning of a page that compares runs; empty for a single run or if there is nothing to compare.

    Attributes:
        shown: The cards.
        figures: Among them.
        tells_text: Whether they report what happened to plain text in each run.
    """

    shown: Markup = field(default_factory=Markup)
    figures: Sequence[Figure] = ()
    tells_text: bool = False


def outcome_part(runs: Sequence[Run]) -> FirstScreen:
    """Makes the first screen of a page about runs."""
    found = outcomes(runs) if len(runs) > 1 else []
    cards = [*_text_cards(found), *_speech_cards(found)]
    if not cards:
        return FirstScreen()
    figure, tells_text = picture(found), any(outcome.text for outcome in found)
    shown = part("outcome", cards=cards, figure=figure, nats=NATS if tells_text else "")
    return FirstScreen(shown, [figure] if figure else [], tells_text)


def _text_cards(found: Sequence[Outcome]) -> list[Card]:
    cards = []
    for index, outcome in enumerate(found):
        finding = text_finding(outcome)
        if finding is not None and outcome.text is not None:
            cost = outcome.text.cost
            shown = number(*cost, signed=True) if any(cost) else "0"
            cards.append(Card((index,), outcome.name, shown, "nats a token", finding))
    return cards


def _speech_cards(found: Sequence[Outcome]) -> list[Card]:
    cards = []
    for index, outcome in enumerate(found[1:], start=1):
        finding, first = speech_finding(outcome, found[0]), found[0].speech
        if finding is not None and outcome.speech is not None and first is not None:
            shares = " against ".join(f"{100 * speech.right[0]:.3g} %" for speech in (outcome.speech, first))
            cards.append(Card((index, 0), f"{outcome.name} against {found[0].name}", shares, "right", finding))
    return cards
