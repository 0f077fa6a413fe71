"""Prompts with a rule that can be checked: every rule about every subject."""

from __future__ import annotations

from typing import Any, NamedTuple

SUBJECTS = (
    "the sea",
    "a rainy day",
    "your favourite animal",
    "how to make tea",
    "a train journey",
    "why people sleep",
    "an old house",
    "learning to swim",
)
"""What the texts are about: nothing that training asks."""


class Rule(NamedTuple):
    """A rule of IFEval (arXiv 2311.07911, table 1) in words.

    Attributes:
        name: Of the item's category.
        words: What is asked, after the task.
        instruction: IFEval's id of the check.
        arguments: Of the check.
    """

    name: str
    words: str
    instruction: str
    arguments: dict[str, Any]


# A short sentence without any rule in mind, which is what training on spoken questions teaches, breaks every one of
# them. IFEval has others that it keeps by chance (no commas, fewer than 100 words), which would hide the loss.
RULES = (
    Rule("quotation", "Put double quotation marks around your whole answer.", "startend:quotation", {}),
    Rule(
        "ending",
        "End with exactly these words: Thank you for reading.",
        "startend:end_checker",
        {"end_phrase": "Thank you for reading."},
    ),
    Rule(
        "title",
        "Give it a title in double angular brackets, such as <<a title>>.",
        "detectable_format:title",
        {},
    ),
    Rule(
        "bullets",
        "Write exactly two bullet points in Markdown, such as: * This is a point.",
        "detectable_format:number_bullet_lists",
        {"num_bullets": 2},
    ),
    Rule(
        "postscript",
        "Add a postscript at the end that starts with P.S.",
        "detectable_content:postscript",
        {"postscript_marker": "P.S."},
    ),
    Rule(
        "highlight",
        "Highlight at least one part of it in Markdown, such as *this part*.",
        "detectable_format:number_highlighted_sections",
        {"num_highlights": 1},
    ),
    Rule(
        "placeholder",
        "Use at least one placeholder in square brackets, such as [name].",
        "detectable_content:number_placeholders",
        {"num_placeholders": 1},
    ),
    Rule("keywords", "Use the words window and quiet.", "keywords:existence", {"keywords": ["window", "quiet"]}),
    Rule(
        "frequency",
        "Use the word very at least twice.",
        "keywords:frequency",
        {"keyword": "very", "frequency": 2, "relation": "at least"},
    ),
    Rule(
        "length",
        "Write at least 30 words.",
        "length_constraints:number_words",
        {"num_words": 30, "relation": "at least"},
    ),
    Rule(
        "two",
        "Give two different texts, separated by six asterisks: ******",
        "combination:two_responses",
        {},
    ),
    Rule(
        "sections",
        "Write two sections that begin with Section 1 and Section 2.",
        "detectable_format:multiple_sections",
        {"section_spliter": "Section", "num_sections": 2},
    ),
)


def instruction_rows() -> list[dict[str, Any]]:
    """Makes a line of a manifest for every rule and subject, as ``InstructionFollowing`` reads them."""
    return [
        {
            "id": f"instruction-{rule.name}-{number}",
            "question": f"Write a short text about {subject}. {rule.words}",
            "instruction_id_list": [rule.instruction],
            "kwargs": [rule.arguments],
            "source": "written for TextKeep (CC0-1.0)",
            "category": rule.name,
            "split": "instructions",
        }
        for rule in RULES
        for number, subject in enumerate(SUBJECTS)
    ]
