"""Alignment sentences: varied, short, full of the facts' names, and none of the facts' questions."""

import json
from pathlib import Path

import pytest

from textkeep.preparation.spoken_facts.alignment_text import alignment_sentences, year_in_words
from textkeep.preparation.spoken_facts.fact import Fact
from textkeep.preparation.spoken_facts.wordnet_text import read_common_words, read_sentences, speakable
from textkeep.preparation.spoken_facts.words import contains_name, words_of

GLOSSES = {
    "noun": [
        'a place to live; "the house (on the left) has 3 rooms"; "The old house stood empty"',
        'an animal that barks; "a dog barked all night"',
    ],
    "verb": ['move fast; "He ran to the station"'],
    "adj": ['of great size; "a big tree"; "x"'],
    "adv": ['in a way that nobody in the whole wide world who reads this would ever call short; "very well done"'],
}


@pytest.fixture
def wordnet(tmp_path: Path) -> Path:
    for part, glosses in GLOSSES.items():
        lines = ["  1 licence text  ", *(f"0000 03 n 01 word 0 000 | {gloss}  " for gloss in glosses)]
        (tmp_path / f"data.{part}").write_text("\n".join(lines) + "\n", encoding="latin-1")
    counts = ["house%1:06:00:: 1 9", "dog%1:05:00:: 1 20", "ice_cream%1:13:00:: 1 99", "run%2:38:00:: 1 5"]
    (tmp_path / "cntlist.rev").write_text("\n".join(counts) + "\n")
    return tmp_path


def facts() -> list[Fact]:
    def country(name: str, capital: str) -> list[Fact]:
        rows = (
            ("capital", f"What is the capital of {name}?", capital),
            ("continent", f"On which continent is {name}?", "Africa" if name == "Ghana" else "Asia"),
            ("currency", f"What currency is used in {name}?", f"{name} pound"),
            ("language", f"What language is spoken in {name}?", f"{name}ish"),
        )
        return [Fact(kind, name, (name, capital), q, (a,), f"It is {a}.", "test") for kind, q, a in rows]

    def element(name: str, symbol: str, year: str) -> list[Fact]:
        return [
            Fact("symbol", name, (name,), f"What is the chemical symbol for {name}?", (symbol,), "", "test"),
            Fact("symbol-of", name, (name,), f"Which element has the symbol {symbol}?", (name,), "", "test"),
            Fact("discovered", name, (name,), f"In which year was {name} discovered?", (year,), "", "test"),
        ]

    carrier = Fact("extra", "Quito", ("Quito",), "How many people live in Ghana?", ("x",), "", "test")
    found = country("Ghana", "Accra") + country("Nepal", "Kathmandu")
    return [*found, *element("iron", "Fe", "1807"), *element("radium", "Ra", "1898"), carrier]


def test_years_are_read_out() -> None:
    assert year_in_words("1807") == "eighteen oh seven"
    assert year_in_words("1774") == "seventeen seventy four"
    assert year_in_words("1920") == "nineteen twenty"
    assert year_in_words("1900") == "nineteen hundred"
    assert year_in_words("1917") == "nineteen seventeen"


def test_only_what_a_voice_can_say_is_taken_from_wordnet(wordnet: Path) -> None:
    examples, definitions = read_sentences(wordnet)
    assert "The old house stood empty." in examples
    assert not any("3" in text for text in examples)  # digits are read out in more than one way
    assert definitions == ["A place to live.", "An animal that barks.", "Of great size."]
    assert speakable("the house (by the sea) , at last") == "The house, at last."
    assert speakable("one two three", most=2) is None
    assert read_common_words(wordnet, 2) == ["dog", "house"]


def test_no_question_of_the_facts_and_every_name_many_times(wordnet: Path) -> None:
    source = facts()
    sentences = alignment_sentences(source, wordnet, 3000)
    texts = [" ".join(words_of(sentence.text)) for sentence in sentences]
    questions = {" ".join(words_of(fact.question)) for fact in source}
    assert len(set(texts)) == len(texts)
    assert not questions & set(texts)  # "How many people live in Ghana?" is also a carrier sentence
    assert all(2 <= len(sentence.text.split()) <= 14 for sentence in sentences)
    for name in ("Ghana", "Kathmandu", "iron", "Nepalish"):
        # Two countries leave few different sentences; the real set is counted in its own test.
        assert sum(contains_name(text, name) for text in texts) >= 10, name
    spelt = [sentence for sentence in sentences if sentence.kind == "symbol"]
    assert all("F E" in s.spoken or "R A" in s.spoken for s in spelt if s.spoken)
    assert {s.kind for s in sentences} == {"carrier", "symbol", "letters", "words", "example", "definition"}


def test_the_seed_decides(wordnet: Path) -> None:
    source = facts()
    assert alignment_sentences(source, wordnet, 1500) == alignment_sentences(source, wordnet, 1500)
    assert alignment_sentences(source, wordnet, 1500) != alignment_sentences(source, wordnet, 1500, seed=1)


def test_too_few_sentences_are_refused(wordnet: Path) -> None:
    with pytest.raises(ValueError, match="--alignment must be at least"):
        alignment_sentences(facts(), wordnet, 10)


def test_missing_wordnet_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="textkeep assets wordnet"):
        read_sentences(tmp_path)


@pytest.mark.slow
def test_the_real_set_holds_every_name_twenty_times_and_no_question(tmp_path: Path) -> None:
    from textkeep.cli.facts import main
    from textkeep.foundation.assets import locate
    from textkeep.preparation.spoken_facts.alignment_text import names_by_kind
    from textkeep.preparation.spoken_facts.sources import read_facts

    try:
        source = read_facts(locate("fact-sources"))
        locate("wordnet")
    except FileNotFoundError as error:
        pytest.skip(str(error))
    main(["--alignment", "60000", str(tmp_path / "align.jsonl")])
    rows = [json.loads(line) for line in (tmp_path / "align.jsonl").read_text().splitlines()]
    assert len(rows) == 60000
    texts = [f" {' '.join(words_of(row['question']))} " for row in rows]
    assert not {f" {' '.join(words_of(fact.question))} " for fact in source} & set(texts)
    together = "|".join(texts)
    for names in names_by_kind(source).values():
        for name in names:
            assert together.count(f" {' '.join(words_of(name))} ") >= 20, name
