from __future__ import annotations

import json
from pathlib import Path

import pytest

from textkeep.cli.facts import main
from textkeep.preparation.spoken_facts.opposites import opposite_facts, read_antonyms, split_opposites
from textkeep.preparation.spoken_facts.words import contains_name

LICENCE = "  1 This software and database is being provided to you\n"


def line(offset: int, words: list[str], pointers: list[tuple[int, int, int]]) -> str:
    """A synset of wndb(5WN) with a hypernym and antonyms: offset, number of the word here, number of the word there."""
    listed = " ".join(f"{word} 0" for word in words)
    targets = [f"@ {offset:08d} a 0000", *(f"! {to:08d} a {here:02x}{there:02x}" for to, here, there in pointers)]
    return f"{offset:08d} 00 a {len(words):02x} {listed} {len(targets):03d} {' '.join(targets)} | a gloss\n"


@pytest.fixture
def wordnet(tmp_path: Path) -> Path:
    adjectives = [
        line(1, ["warm", "hot"], [(2, 2, 1), (3, 1, 1)]),
        line(2, ["cold(p)"], [(1, 1, 2)]),
        line(3, ["cool"], [(1, 1, 1)]),
        line(4, ["big"], [(5, 1, 2)]),
        line(5, ["tiny", "small"], [(4, 2, 1)]),
        line(6, ["same"], [(7, 1, 1)]),
        line(7, ["opposite"], [(6, 1, 1)]),
        line(8, ["ice_cold"], [(1, 1, 2)]),
    ]
    (tmp_path / "data.adj").write_text(LICENCE + "".join(adjectives))
    for part in ("noun", "verb", "adv"):
        (tmp_path / f"data.{part}").write_text(LICENCE)
    counts = {"hot": 9, "cold": 8, "big": 7, "small": 6, "warm": 5, "cool": 4}
    (tmp_path / "cntlist.rev").write_text("".join(f"{word}%3:00:00:: 1 {n}\n" for word, n in counts.items()))
    return tmp_path


def test_antonyms_are_the_words_that_the_pointers_number(wordnet: Path) -> None:
    assert read_antonyms(wordnet) == {
        "hot": ["cold"],
        "warm": ["cool"],
        "cold": ["hot"],
        "cool": ["warm"],
        "big": ["small"],
        "small": ["big"],
    }


def test_the_commonest_words_are_asked(wordnet: Path) -> None:
    facts = opposite_facts(wordnet, 3)
    assert [(fact.question, fact.answers) for fact in facts] == [
        ("What is the opposite of hot?", ("cold",)),
        ("What is the opposite of cold?", ("hot",)),
        ("What is the opposite of big?", ("small",)),
    ]
    assert facts[0].target == "The opposite of hot is cold."
    with pytest.raises(ValueError, match=r"--opposites 7: allowed: 1 to 6"):
        opposite_facts(wordnet, 7)


def test_words_that_are_opposites_stay_in_one_split(wordnet: Path) -> None:
    splits = split_opposites(opposite_facts(wordnet, 6))
    assert sorted(fact.entity for rows in splits.values() for fact, _ in rows) == sorted(read_antonyms(wordnet))
    for split, rows in splits.items():
        others = [fact for name, facts in splits.items() if name != split for fact, _ in facts]
        for fact, heldout in rows:
            assert heldout == (split != "train")
            assert not any(contains_name(other.target, term) for other in others for term in fact.terms)


def test_the_command_writes_three_manifests(wordnet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "out"), "--opposites", "6", "--wordnet", str(wordnet)]) == 0
    lines = [json.loads(text) for path in (tmp_path / "out").glob("*.jsonl") for text in path.read_text().splitlines()]
    assert sorted(row["id"] for row in lines)[:2] == ["opposite-big", "opposite-cold"]
    assert "train.jsonl" in capsys.readouterr().out
