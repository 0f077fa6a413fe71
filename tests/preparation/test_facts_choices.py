from __future__ import annotations

import json
from pathlib import Path

import pytest

from textkeep.cli.facts import main
from textkeep.preparation.spoken_facts.choices import choice_rows

SHIPPED = Path(__file__).resolve().parents[2] / "datamodules" / "spoken_facts"


def row(identity: str, question: str, answer: str, target: str, category: str = "animal") -> dict[str, object]:
    return {"id": identity, "question": question, "answers": [answer], "target": target, "category": category}


def test_the_command_makes_the_shipped_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "choices.jsonl"), "--choices"]) == 0
    assert (tmp_path / "choices.jsonl").read_text() == (SHIPPED / "choices.jsonl").read_text()
    assert "127 multiple choice questions" in capsys.readouterr().out


def test_options_are_of_one_kind_and_stand_in_the_sentence() -> None:
    (made,) = choice_rows([row("a", "Where do aeroplanes land?", "airport", "Aeroplanes land at an airport.")])
    assert set(made["choices"]) <= {"library", "airport", "hospital", "bakery", "harbour"}
    assert made["choices"][made["gold"]] == "airport"
    for option, sentence in zip(made["choices"], made["statements"], strict=True):
        assert sentence == f"Aeroplanes land at {'an' if option == 'airport' else 'a'} {option}."


def test_an_option_at_the_start_gets_a_capital_and_none_is_named_in_the_question() -> None:
    (made,) = choice_rows([row("a", "Which day comes after Monday?", "Tuesday", "Tuesday comes after Monday.")])
    assert "Monday" not in made["choices"]
    (made,) = choice_rows([row("b", "Which insect makes honey?", "bees", "Bees make honey.")])
    assert all(sentence[0].isupper() for sentence in made["statements"])


def test_a_question_without_enough_options_is_left_out() -> None:
    assert choice_rows([row("a", "What is it?", "a thing of its own", "It is a thing of its own.")]) == []
    assert choice_rows([row("b", "How many?", "four", "There are some.")]) == []


def test_the_choice_does_not_depend_on_the_order_of_the_questions() -> None:
    rows = [json.loads(line) for line in (SHIPPED / "general.jsonl").read_text().splitlines()]
    forward = {made["id"]: made["choices"] for made in choice_rows(rows)}
    assert forward == {made["id"]: made["choices"] for made in choice_rows(rows[::-1])}


def test_prose_is_drawn_from_wordnet(tmp_path: Path) -> None:
    wordnet = tmp_path / "wordnet"
    wordnet.mkdir()
    glosses = [f'a thing; "the {word} thing was seen by many people in the town"' for word in ("red", "blue", "green")]
    body = "".join(f"0000 00 n 01 x 0 000 | {gloss}\n" for gloss in glosses)
    for part in ("noun", "verb", "adj", "adv"):
        (wordnet / f"data.{part}").write_text(body if part == "noun" else "")
    out = tmp_path / "prose.jsonl"
    assert main([str(out), "--prose", "2", "--wordnet", str(wordnet)]) == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert len({line["text"] for line in lines}) == 2
    assert all(line["text"].startswith("The ") and line["text"].endswith("town.") for line in lines)
    with pytest.raises(ValueError, match="allowed: 1 to 3"):
        main([str(out), "--prose", "4", "--wordnet", str(wordnet), "--overwrite"])
