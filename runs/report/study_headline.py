"""The findings of a study in three figures: the first screen of its page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from markupsafe import Markup

from ...evaluation import Estimate
from .estimates import adjusted, difference, interval, score, share_items, shown
from .finding import Finding
from .numbers import LEVEL
from .outcome_part import Card
from .page import part
from .study_data import ArmResult, StudyData
from .study_run import MAIN, Measure

SPEECH = Measure(MAIN, "speech")


@dataclass(frozen=True)
class Kept:
    """The effect of an arm on text.

    Attributes:
        place: Index of the arm among the trained ones.
        arm: Its results.
        change: Of the measure, since the untouched LLM.
        p: After Holm's adjustment over the arms; NaN if nothing changed.
    """

    place: int
    arm: ArmResult
    change: Estimate
    p: float

    def lost(self, measure: Measure) -> bool:
        """Returns whether it demonstrably lost text."""
        return self.p < LEVEL and measure.better * self.change.estimate < 0


def headline_part(data: StudyData) -> Markup:
    """Builds the cards; empty if no arm can be compared with the untouched LLM."""
    measure = text_measure(data)
    kept = kept_by_arm(data, measure) if measure else []
    if measure is None or not kept:
        return Markup("")
    cards = [_lost_card(kept, measure), _kept_card(kept, measure), *_heard_card(kept, measure)]
    return part("outcome", cards=cards, figure=None)


def text_measure(data: StudyData) -> Measure | None:
    """Chooses the measure of lost text: the loss on plain text where it was measured, since accuracies fall late.

    None if the untouched LLM was not scored on text.
    """
    measures = [m for m in data.measures if m.modality == "text" and data.untouched and m in data.untouched.scores]
    return next((m for m in measures if m.kind == "loss"), next(iter(measures), None))


def kept_by_arm(data: StudyData, measure: Measure) -> list[Kept]:
    """Returns each arm's effect on text, best kept first."""
    found: list[tuple[int, ArmResult, Estimate]] = []
    start: Mapping[str, float] = data.untouched.scores[measure] if data.untouched else {}
    for place, arm in enumerate(data.trained):
        ours = arm.by_seed(measure)
        before = {seed: dict(start) for seed in ours}
        if ours and share_items(ours, before):
            found.append((place, arm, difference(ours, before, measure)))
    p_values = adjusted([change for *_, change in found])
    kept = [Kept(*entry, p) for entry, p in zip(found, p_values, strict=True)]
    return sorted(kept, key=lambda one: -measure.better * one.change.estimate)


def _lost_card(kept: list[Kept], measure: Measure) -> Card:
    losers = [one for one in kept if one.lost(measure)]
    worst = kept[-1]
    mark = "bad" if losers else "open"
    how = f"{measure.label} since the untouched LLM; demonstrably: p < {LEVEL:g} after Holm's adjustment over the arms."
    topic = f"Text demonstrably lost in {len(losers)} of {len(kept)} arms"
    return _card(worst, "most lost", measure, Finding(topic, mark, how))


def _kept_card(kept: list[Kept], measure: Measure) -> Card:
    best = kept[0]
    mark = "bad" if best.lost(measure) else "same" if not any(best.change[:3]) else "open"
    return _card(best, "least lost", measure, Finding(best.arm.name, mark, _heard(best.arm)))


def _heard_card(kept: list[Kept], measure: Measure) -> list[Card]:
    spoken = [one for one in kept if SPEECH in one.arm.scores]
    if not spoken:
        return []
    best = max(spoken, key=lambda one: score(one.arm.scores[SPEECH], SPEECH).estimate)
    found = score(best.arm.scores[SPEECH], SPEECH)
    words = f"{measure.label} since the untouched LLM: {shown(measure, best.change, signed=True)} {measure.unit}."
    finding = Finding(best.arm.name, "plain", words)
    figure = interval([SPEECH.scale * value for value in found[:3]])
    return [Card((best.place,), f"best on spoken questions, {_seeds(best.arm)}", figure, "% right", finding)]


def _card(one: Kept, title: str, measure: Measure, finding: Finding) -> Card:
    name = title if finding.topic == one.arm.name else f"{title}: {one.arm.name}"
    return Card(
        (one.place,), f"{name}, {_seeds(one.arm)}", shown(measure, one.change, signed=True), measure.unit, finding
    )


def _seeds(arm: ArmResult) -> str:
    return "one seed: items only" if len(arm.runs) == 1 else f"{len(arm.runs)} seeds"


def _heard(arm: ArmResult) -> str:
    if SPEECH not in arm.scores:
        return "It was not asked spoken questions."
    found = score(arm.scores[SPEECH], SPEECH)
    return f"Spoken questions right: {interval([SPEECH.scale * value for value in found[:3]])} %."
