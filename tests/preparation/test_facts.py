"""Spoken Facts' text: what is read, how it is divided, and what the repository ships."""

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest
import soundfile

from textkeep.cli.main import main
from textkeep.preparation.spoken_facts.countries import read_countries
from textkeep.preparation.spoken_facts.elements import read_elements
from textkeep.preparation.spoken_facts.fact import Fact
from textkeep.preparation.spoken_facts.sources import read_facts
from textkeep.preparation.spoken_facts.splits import SplitSizes, entity_groups, split_facts
from textkeep.preparation.spoken_facts.words import contains_name

SHIPPED = Path(__file__).parents[2] / "datamodules" / "spoken_facts"

COUNTRIES = {
    "FR": ("France", "Paris", "EU", ["EUR"], ["fr"], []),
    "CO": ("Colombia", "Bogotá", "SA", ["COP"], ["es"], []),
    "CH": ("Switzerland", "Bern", "EU", ["CHF", "CHE"], ["de", "fr"], ["Helvetia", "Swiss (old)"]),
    "TR": ("Türkiye", "Ankara", "AS", ["TRY"], ["tr"], ["Turkey"]),
    "SG": ("Singapore", "Singapore", "AS", ["SGD"], ["en"], []),
    "GM": ("Gambia", "Banjul", "AF", ["GMD"], ["en"], []),
    "AQ": ("Antarctica", "", "AN", [], [], []),
}
CURRENCIES = {
    "EUR": "Euro",
    "COP": "Colombian Peso",
    "CHF": "Swiss Franc",
    "CHE": "WIR Euro",
    "TRY": "Turkish Lira",
    "SGD": "Singapore Dollar",
    "GMD": "Gambian Dalasi",
}
LANGUAGES = {"fr": "French", "es": "Spanish", "de": "German", "tr": "Turkish", "en": "English"}
CONTINENTS = {"EU": "Europe", "SA": "South America", "AS": "Asia", "AF": "Africa", "AN": "Antarctica"}
ELEMENTS = """
some notice

hydrogen
Symbol: H
Atomic number: 1
Discovered by Henry Cavendish in 1776.

iron
Symbol: Fe
Atomic number: 26
Known since antiquity.

sodium
Symbol: Na
Atomic number: 11
It was first isolated by Humphrey Davy in 1807.

unnilium
Symbol: Unu
Atomic number: 120
Discovered in 1999.
"""


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    folder = tmp_path / "sources" / "countries-list"
    folder.mkdir(parents=True)
    keys = ("name", "capital", "continent", "currency", "languages", "alias")
    tables = {
        "countries": {code: dict(zip(keys, row, strict=True)) for code, row in COUNTRIES.items()},
        "continents": CONTINENTS,
        "currencies": {code: {"name": name} for code, name in CURRENCIES.items()},
        "languages": {code: {"name": name} for code, name in LANGUAGES.items()},
    }
    for name, table in tables.items():
        (folder / f"{name}.min.json").write_text(json.dumps(table), encoding="utf-8")
    with gzip.open(folder.parent / "elements.dict.dz", "wt", encoding="latin-1") as file:
        file.write(ELEMENTS)
    return folder.parent


def by_id(facts: list[Fact]) -> dict[str, Fact]:
    return {fact.id: fact for fact in facts}


def test_countries_become_questions_with_sentences(sources: Path) -> None:
    facts = by_id(read_countries(sources / "countries-list"))
    paris = facts["capital-france"]
    assert (paris.question, paris.answers, paris.target) == (
        "What is the capital of France?",
        ("Paris",),
        "The capital of France is Paris.",
    )
    assert facts["capital-colombia"].answers == ("Bogota", "Bogotá")
    assert facts["capital-colombia"].target.isascii()
    assert facts["capital-of-switzerland"].answers == ("Switzerland", "Helvetia")
    assert facts["currency-switzerland"].answers == ("Swiss franc", "franc")
    assert facts["currency-switzerland"].target == "Switzerland uses the Swiss franc."
    assert facts["language-switzerland"].question == "Name a language that is spoken in Switzerland."
    assert facts["language-switzerland"].answers == ("German", "French")
    assert facts["continent-turkey"].answers == ("Asia", "Europe")
    assert facts["continent-gambia"].target == "The Gambia is in Africa."
    assert not any("antarctica" in name for name in facts)


def test_a_city_that_is_its_country_is_not_asked_backwards(sources: Path) -> None:
    facts = by_id(read_countries(sources / "countries-list"))
    assert "capital-singapore" in facts
    assert "capital-of-singapore" not in facts


def test_elements_are_spelt_and_doubtful_years_left_out(sources: Path) -> None:
    facts = by_id(read_elements(sources / "elements.dict.dz"))
    assert facts["symbol-iron"].target == "The chemical symbol for iron is Fe."
    assert facts["symbol-of-iron"].spoken == "Which element has the symbol F E?"
    assert facts["symbol-of-iron"].answers == ("iron",)
    assert facts["discovered-sodium"].answers == ("1807",)
    assert "discovered-hydrogen" not in facts
    assert not any("unnilium" in name for name in facts)


def test_missing_sources_say_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="textkeep assets fact-sources"):
        read_countries(tmp_path)
    with pytest.raises(FileNotFoundError, match="textkeep assets fact-sources"):
        read_elements(tmp_path / "elements.dict.dz")


def made_up(count: int) -> list[Fact]:
    kinds = ("capital", "continent", "currency", "language")
    return [
        Fact(kind, f"Land{i}", (f"Land{i}", f"City{i}"), f"Which {kind} has Land{i}?", ("x",), f"Land{i}: x.", "test")
        for i in range(count)
        for kind in kinds
    ]


def test_splits_are_disjoint_and_keep_heldout_entities_apart() -> None:
    facts = made_up(40)
    splits = split_facts(facts, SplitSizes(validation=15, test_seen=15, test_heldout=15))
    ids = {name: {fact.id for fact, _ in rows} for name, rows in splits.items()}
    assert sum(map(len, ids.values())) == len(facts) == len(set.union(*ids.values()))
    assert len(ids["validation"]) == 15
    heldout = {fact.entity for fact, held in splits["test"] if held}
    seen = {fact.entity for fact, held in splits["test"] if not held}
    trained = Counter(fact.entity for fact, _ in splits["train"])
    assert len(heldout) == 4  # whole entities of four questions each: 16 is the first count of at least 15
    assert not heldout & set(trained)
    assert not heldout & {fact.entity for fact, _ in splits["validation"]}
    assert all(trained[entity] >= 2 for entity in seen)


def test_splits_do_not_depend_on_the_order_of_the_sources() -> None:
    facts = made_up(40)
    sizes = SplitSizes(10, 10, 10)
    assert split_facts(facts, sizes) == split_facts(facts[::-1], sizes)


def test_entities_whose_names_contain_each_other_stay_together() -> None:
    facts = [
        Fact("a", "Guinea", ("Guinea", "Conakry"), "Where is Guinea?", ("x",), "There.", "test"),
        Fact("a", "Guinea-Bissau", ("Guinea-Bissau", "Bissau"), "Where is Guinea-Bissau?", ("x",), "There.", "test"),
        Fact("a", "Niue", ("Niue", "Alofi"), "What pays Niue?", ("x",), "Niue uses the New Zealand dollar.", "test"),
        Fact("a", "New Zealand", ("New Zealand", "Wellington"), "Where is New Zealand?", ("x",), "There.", "test"),
        Fact("a", "Niger", ("Niger", "Niamey"), "Where is Niger?", ("x",), "There.", "test"),
        Fact("a", "Nigeria", ("Nigeria", "Abuja"), "Where is Nigeria?", ("x",), "There.", "test"),
    ]
    groups = entity_groups(facts)
    assert groups["Guinea"] == groups["Guinea-Bissau"]
    assert groups["Niue"] == groups["New Zealand"]
    assert groups["Niger"] != groups["Nigeria"]


def test_repeated_questions_and_too_few_facts_are_refused() -> None:
    facts = made_up(2)
    with pytest.raises(ValueError, match="share the id 'capital-land0'"):
        split_facts([*facts, facts[0]])
    with pytest.raises(ValueError, match="unseen questions were asked for"):
        split_facts(facts, SplitSizes(100, 100, 1))


def test_the_command_writes_three_splits_or_one_line(
    sources: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEXTKEEP_HOME", str(tmp_path / "empty"))
    assert main(["facts", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    told = f"asset 'fact-sources' is not here ({tmp_path / 'empty'}): run `textkeep assets fact-sources`"
    assert error == f"textkeep: error: {told}\n"
    assert main(["facts", str(tmp_path / "out"), "--sources", str(sources)]) == 2  # too few facts for the splits
    assert not (tmp_path / "out").exists()
    assert len(read_facts(sources)) > 20


# What the repository ships.


def shipped(split: str) -> list[dict]:
    return [json.loads(line) for line in (SHIPPED / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]


def test_shipped_splits_share_nothing_and_hold_entities_out() -> None:
    rows = {split: shipped(split) for split in ("train", "validation", "test")}
    assert len(rows["train"]) >= 600
    assert len(rows["test"]) >= 150
    everything = [row for split in rows.values() for row in split]
    for key in ("id", "question"):
        assert len({row[key] for row in everything}) == len(everything)
    heldout = [row for row in rows["test"] if row["heldout_entity"]]
    assert len(heldout) >= 100
    names = {row["entity"] for row in heldout}
    names |= {row["answers"][0] for row in heldout if row["category"] == "capital"}
    for row in rows["train"] + rows["validation"]:
        for name in names:
            assert not contains_name(f"{row['question']} {row['target']}", name), (row["id"], name)


def test_shipped_targets_hold_an_accepted_answer_in_plain_text() -> None:
    for split in ("train", "validation", "test", "general"):
        for row in shipped(split):
            assert any(contains_name(row["target"], answer) for answer in row["answers"]), row["id"]
            assert row["question"].isascii()
            assert row["target"].isascii()
            assert row["split"] == split


def test_general_questions_are_about_other_things() -> None:
    facts = {row["entity"].lower() for split in ("train", "test") for row in shipped(split)}
    general = shipped("general")
    assert len(general) >= 100
    for row in general:
        for name in facts:
            assert not contains_name(f"{row['question']} {row['target']}", name), (row["id"], name)


def test_shipped_clips_are_all_there_checked_and_small() -> None:
    rows = {split: shipped(split) for split in ("train", "validation", "test", "spoken_choices")}
    named = {Path(row["audio"]).name: row for split in rows.values() for row in split}
    clips = {path.name: path for path in (SHIPPED / "clips").iterdir()}
    assert set(named) == set(clips)
    assert sum(path.stat().st_size for path in clips.values()) < 12e6
    assert all(row["wer"] <= 0.5 and row["transcript"] for row in named.values())
    for name in sorted(clips)[::40]:
        info = soundfile.info(clips[name])
        assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "OPUS")
        assert info.duration == pytest.approx(named[name]["seconds"], abs=0.001)


def test_shipped_test_voices_speak_no_training_question() -> None:
    voices = {split: {row["voice"] for row in shipped(split)} for split in ("train", "validation", "test")}
    assert len(voices["train"] | voices["test"]) >= 6
    assert not voices["train"] & (voices["validation"] | voices["test"])
    assert {row["voice"] for row in shipped("spoken_choices")} == voices["test"]


def test_the_spoken_choices_are_the_written_ones_with_clips() -> None:
    heard = {"audio", "voice", "seconds", "transcript", "wer"}
    spoken = shipped("spoken_choices")
    assert [{key: value for key, value in row.items() if key not in heard} for row in spoken] == shipped("choices")
    assert all(heard <= set(row) for row in spoken)
