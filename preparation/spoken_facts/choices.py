"""Multiple choice out of the held-out general questions: wrong options are things of the same kind."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from .draws import stable_hash

OPTIONS = 4
OPPOSITES = "opposite"
"""Category whose own answers are its options; the others take theirs from ``KINDS``."""

# What could be asked for instead, written by hand as the questions were; an answer takes the first list that has it.
KINDS = (
    "two, three, four, five, six, seven, eight, nine, ten",
    "twelve, twenty, twenty four, twenty six, thirty, fifty, sixty, one hundred",
    "white, black, red, green, blue, yellow, brown, pink, orange, purple",
    "Monday, Tuesday, Wednesday, Thursday, Friday, Saturday",
    "January, February, April, July, September, December",
    "spring, summer, autumn, winter",
    "north, south, east, west",
    "Earth, Mars, Venus, Jupiter, Saturn, Mercury",
    "sun, moon, cloud, rainbow",
    "ice, steam, rain, mud, sand",
    "plant, stone, animal, house",
    "puppy, kitten, calf, lamb, foal, chick",
    "sheep, pigs, horses, ducks",
    "cow, elephant, giraffe, lion, zebra, camel, cat, dog, pig, bear",
    "bees, ants, flies, spiders",
    "chickens, eagles, owls, penguins",
    "blue whale, dolphin, shark, octopus",
    "butterfly, frog, bird, fish, spider",
    "water, trees, nests, caves",
    "nest, web, cave, hive",
    "eyes, ears, nose, heart, brain, lungs, teeth, stomach",
    "baker, teacher, doctor, farmer, pilot",
    "firefighters, bakers, farmers, painters",
    "library, airport, hospital, bakery, harbour",
    "bed, refrigerator, oven, bath",
    "umbrella, clock, key, knife, pen, toothbrush, ladder",
    "flour, milk, wood, glass, stone",
    "shoes, gloves, hats, scarves",
)

# Options that would be right too, or nearly, by the answer and the word that is asked about.
TOO_NEAR = {
    "short": {"small"},
    "small": {"short"},
    "flour": {"milk"},
    "rain": {"ice"},
    "nose": {"lungs"},
    "lungs": {"nose"},
    "knife": {"key"},
}


def choice_rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Makes rows with ``choices``, full sentences of them in ``statements``, and the index ``gold`` of the right one.

    Of the things that could be asked for instead, those with the smallest hashes of (question, option) are taken, and
    the order is drawn by hash too: nothing depends on the order of the rows.

    Args:
        rows: Questions with ``id, question, answers, target, category``.

    Returns:
        The questions for which there are enough options, and whose answer occurs in their sentence.
    """
    opposites = [row["answers"][0] for row in rows if row["category"] == OPPOSITES]
    made = []
    for row in rows:
        right, place = row["answers"][0], _place(row["target"], row["answers"][0])
        wrong = _wrong(row, opposites if row["category"] == OPPOSITES else _kindred(right))
        if place is None or len(wrong) < OPTIONS - 1:
            continue
        options = sorted([right, *wrong[: OPTIONS - 1]], key=lambda option: stable_hash(f"order {row['id']} {option}"))
        statements = [_statement(row["target"], place, option) for option in options]
        added = {"choices": options, "statements": statements, "gold": options.index(right)}
        made.append({**row, "id": f"choice-{row['id']}", "split": "choices", **added})
    return made


def _kindred(answer: str) -> list[str]:
    listed = (kind.split(", ") for kind in KINDS)
    return next((kind for kind in listed if answer in kind), [])


def _wrong(row: Mapping[str, Any], kindred: Sequence[str]) -> list[str]:
    """Returns options that are no answer of the question, not too near to one, and not named in it; best first."""
    barred = {*row["answers"], *TOO_NEAR.get(row["answers"][0], ())}
    asked = row["question"].lower()
    fitting = {option for option in kindred if option not in barred and not re.search(rf"\b{option.lower()}\b", asked)}
    return sorted(fitting, key=lambda option: stable_hash(f"option {row['id']} {option}"))


def _place(target: str, answer: str) -> tuple[int, int] | None:
    """Finds the answer in its sentence; None if it is not there, or several times."""
    found = list(re.finditer(rf"\b{re.escape(answer)}\b", target, re.IGNORECASE))
    return found[0].span() if len(found) == 1 else None


def _statement(target: str, place: tuple[int, int], option: str) -> str:
    """Puts another option into the sentence, with the article and the capital letter that go with it."""
    before, after = target[: place[0]], target[place[1] :]
    if article := re.search(r"\b(an?) $", before, re.IGNORECASE):
        fitting = "an" if option[0].lower() in "aeiou" else "a"
        fitting = fitting.capitalize() if article.group(1)[0].isupper() else fitting
        before = f"{before[: article.start()]}{fitting} "
    return before + (option[:1].upper() + option[1:] if not before else option) + after
