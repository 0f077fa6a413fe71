"""``textkeep facts``: rebuilds the text of Spoken Facts, and other texts of this package, from their sources."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..foundation.files import replacing
from ..foundation.json_lines import json_objects
from .alignment_text import alignment_sentences
from .fact_choices import choice_rows
from .fact_opposites import opposite_facts, split_opposites
from .fact_prose import prose_rows
from .fact_sources import Fact, read_countries, read_elements
from .fact_splits import split_facts
from .numbers import positive
from .replacing import add_overwrite_option, check_output

SPLITS = ("train", "validation", "test")


def fact_row(fact: Fact, split: str, heldout: bool) -> dict[str, Any]:
    """A fact as a line of a manifest."""
    row: dict[str, Any] = {"id": fact.id, "question": fact.question, "answers": list(fact.answers)}
    row |= {"target": fact.target, "source": fact.source, "category": fact.category, "entity": fact.entity}
    row |= {"split": split, "heldout_entity": heldout}
    return row | ({"spoken": fact.spoken} if fact.spoken else {})


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write JSON lines to a temporary name beside ``path``, then rename it."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("textkeep facts", description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "output", type=Path, help="folder for train, validation and test.jsonl; a file with one of the next options"
    )
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument(
        "--alignment", type=positive, metavar="N", help="write N sentences for adaptor alignment instead"
    )
    instead.add_argument(
        "--choices", action="store_true", help="write multiple choice of the general questions instead"
    )
    instead.add_argument(
        "--opposites", type=positive, metavar="N", help="write N questions on opposites, in three splits, instead"
    )
    instead.add_argument("--prose", type=positive, metavar="N", help="write N plain sentences of WordNet instead")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sentences (default: 0)")
    parser.add_argument("--sources", type=Path, help="folder of the fact sources (default: the asset fact-sources)")
    parser.add_argument("--wordnet", type=Path, help="folder of WordNet's data files (default: the asset wordnet)")
    add_overwrite_option(parser)
    return parser


def read_facts(sources: Path) -> list[Fact]:
    """All questions, from the folder that ``textkeep assets fact-sources`` makes."""
    return read_countries(sources / "countries-list") + read_elements(sources / "elements.dict.dz")


def main(argv: list[str]) -> int:
    """Run the command.

    Args:
        argv: Arguments after ``facts``.

    Returns:
        0 when the files are written.
    """
    from .assets import locate

    arguments = _parser().parse_args(argv)
    _check_place(arguments)
    if arguments.choices:
        return _told(arguments.output, choice_rows(_general_questions()), "multiple choice questions")
    if arguments.prose is not None:
        prose = prose_rows(arguments.wordnet or locate("wordnet"), arguments.prose, arguments.seed)
        return _told(arguments.output, prose, "sentences")
    if arguments.opposites is not None:
        opposites = opposite_facts(arguments.wordnet or locate("wordnet"), arguments.opposites)
        return _write_splits(arguments.output, split_opposites(opposites))
    facts = read_facts(arguments.sources or locate("fact-sources"))
    if arguments.alignment is None:
        return _write_splits(arguments.output, split_facts(facts))
    sentences = alignment_sentences(facts, arguments.wordnet or locate("wordnet"), arguments.alignment, arguments.seed)
    rows_of_text = (
        {"id": f"align-{number:06d}", "question": sentence.text, "answers": [sentence.text], "target": sentence.text}
        | {"source": "Spoken Facts and WordNet 3.0", "category": sentence.kind, "split": "train"}
        | ({"spoken": sentence.spoken} if sentence.spoken else {})
        for number, sentence in enumerate(sentences)
    )
    return _told(arguments.output, list(rows_of_text), "sentences")


def _check_place(arguments: argparse.Namespace) -> None:
    """Refuses an output that is taken: one file with most options, else the files of three splits."""
    alone = arguments.choices or arguments.prose is not None or arguments.alignment is not None
    output: Path = arguments.output
    for path in [output] if alone else [output / f"{split}.jsonl" for split in SPLITS]:
        check_output("facts:", path, arguments.overwrite)


def _write_splits(folder: Path, splits: Mapping[str, Sequence[tuple[Fact, bool]]]) -> int:
    for split, rows in splits.items():
        write_lines(folder / f"{split}.jsonl", (fact_row(fact, split, held) for fact, held in rows))
        heldout = sum(held for _, held in rows)
        print(f"{folder / split}.jsonl: {len(rows)} questions, {heldout} on held-out entities")
    return 0


def _told(output: Path, rows: list[dict[str, Any]], what: str) -> int:
    write_lines(output, rows)
    print(f"{output}: {len(rows)} {what}")
    return 0


def _general_questions() -> list[dict[str, Any]]:
    """The held-out general questions that ship with the package."""
    path = Path(__file__).parents[1] / "datamodules" / "spoken_facts" / "general.jsonl"
    return [row for _, row in json_objects(path)]
