"""``textkeep facts``: rebuilds the text of Spoken Facts, and other texts of this package, from their sources.

It works only in a clone of the repository: the wheel does not contain what it needs.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..foundation.assets import locate
from ..foundation.files import write_json_lines
from ..foundation.outputs import check_output
from ..preparation.plain_text.sets import SETS, plain_text_sets, read_works
from ..preparation.spoken_facts.choices import choice_rows
from ..preparation.spoken_facts.fact import Fact
from ..preparation.spoken_facts.instruction_prompts import instruction_rows
from ..preparation.spoken_facts.manifest_rows import SPLITS, alignment_rows, fact_row, general_questions
from ..preparation.spoken_facts.opposites import opposite_facts, split_opposites
from ..preparation.spoken_facts.prose import prose_rows
from ..preparation.spoken_facts.sources import read_facts
from ..preparation.spoken_facts.splits import split_facts
from .command_parser import CommandParser
from .options import add_overwrite_option, positive


def main(argv: list[str]) -> int:
    """Runs the command.

    Args:
        argv: Arguments after ``facts``.

    Returns:
        0 when the files are written.
    """
    arguments = _parser().parse_args(argv)
    _check_place(arguments)
    if arguments.choices:
        return _told(arguments.output, choice_rows(general_questions()), "multiple choice questions")
    if arguments.instructions:
        return _told(arguments.output, instruction_rows(), "prompts with a rule")
    if arguments.prose is not None:
        prose = prose_rows(arguments.wordnet or locate("wordnet"), arguments.prose, arguments.seed)
        return _told(arguments.output, prose, "sentences")
    if arguments.plain_text:
        for name, passages in plain_text_sets(read_works(arguments.sources or locate("prose-sources"))).items():
            _told(arguments.output / f"{name}.jsonl", passages, "passages")
        return 0
    if arguments.opposites is not None:
        opposites = opposite_facts(arguments.wordnet or locate("wordnet"), arguments.opposites)
        return _write_splits(arguments.output, split_opposites(opposites))
    facts = read_facts(arguments.sources or locate("fact-sources"))
    if arguments.alignment is None:
        return _write_splits(arguments.output, split_facts(facts))
    wordnet = arguments.wordnet or locate("wordnet")
    rows = alignment_rows(facts, wordnet, arguments.alignment, arguments.seed)
    return _told(arguments.output, list(rows), "sentences")


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser("textkeep facts", description=__doc__)
    parser.add_argument(
        "output",
        type=Path,
        help="folder for train, validation and test.jsonl (with --plain-text: probe, evaluation and rehearsal.jsonl); "
        "a file with --alignment, --choices or --prose",
    )
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument(
        "--alignment", type=positive, metavar="N", help="write N sentences for adaptor alignment instead"
    )
    instead.add_argument(
        "--choices", action="store_true", help="write multiple choice of the general questions instead"
    )
    instead.add_argument(
        "--instructions", action="store_true", help="write prompts with a rule that can be checked instead"
    )
    instead.add_argument(
        "--opposites", type=positive, metavar="N", help="write N questions on opposites, in three splits, instead"
    )
    instead.add_argument("--prose", type=positive, metavar="N", help="write N plain sentences of WordNet instead")
    instead.add_argument(
        "--plain-text", action="store_true", help="write the sets of plain text of the asset prose-sources instead"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the sentences (default: 0)")
    parser.add_argument("--sources", type=Path, help="folder of the sources (default: the asset they come from)")
    parser.add_argument("--wordnet", type=Path, help="folder of WordNet's data files (default: the asset wordnet)")
    add_overwrite_option(parser)
    return parser


def _check_place(arguments: argparse.Namespace) -> None:
    """Refuses an existing output: one file with most options, otherwise the files of the splits."""
    alone = arguments.choices or arguments.instructions
    alone = alone or arguments.prose is not None or arguments.alignment is not None
    output: Path = arguments.output
    splits = SETS if arguments.plain_text else SPLITS
    for path in [output] if alone else [output / f"{split}.jsonl" for split in splits]:
        check_output("facts:", path, arguments.overwrite)


def _write_splits(folder: Path, splits: Mapping[str, Sequence[tuple[Fact, bool]]]) -> int:
    for split, rows in splits.items():
        write_json_lines((fact_row(fact, split, held) for fact, held in rows), folder / f"{split}.jsonl")
        heldout = sum(held for _, held in rows)
        print(f"{folder / split}.jsonl: {len(rows)} questions, {heldout} on held-out entities")
    return 0


def _told(output: Path, rows: list[dict[str, Any]], what: str) -> int:
    write_json_lines(rows, output)
    print(f"{output}: {len(rows)} {what}")
    return 0
