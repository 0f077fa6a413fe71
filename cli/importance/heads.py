"""``textkeep importance heads MODEL [TUNED] --text D --speech D``: do the same heads matter for text and for speech?

Each attention head is taken out in turn. Of one model its heads for text are held against those for speech; of two, the
first one's for text against the second one's too. The overlap of the top heads stands beside what random sets of heads
in the same layers share, and beside what two halves of the examples share.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import TYPE_CHECKING, Any

from ...evaluation import shown_p
from ...foundation.errors import UserError
from ..command_parser import CommandParser
from ..errors import speaking_as
from ..options import MODEL_HELP, add_model_options, positive
from ..output import add_output_options, check_outputs, deliver, given_arguments, print_table, progress_bars
from .examples import add_example_options, batches_before_and_after, loaded, read_batches

if TYPE_CHECKING:
    from ...datamodules.sources.example import Modality
    from ...importance.heads import HeadEffects, HeadOverlap
    from ...inference import LoadedModel


@dataclass(frozen=True)
class Pair:
    """Two measurements and the heads that they share."""

    first: str
    second: str
    found: HeadOverlap

    @property
    def name(self) -> str:
        """Of a row."""
        return f"{self.first} / {self.second}"


def main(argv: list[str]) -> int:
    """Takes every head out, and compares those that matter.

    Args:
        argv: The words after ``textkeep importance heads``.

    Returns:
        The exit code.
    """
    arguments = _parser().parse_args(argv)
    if arguments.tuned is None and arguments.speech is None:
        raise UserError("importance: heads of one model are compared between text and speech; give --speech too")
    check_outputs(arguments)
    from ...importance.heads import default_top, overlap_of_heads
    from ...runs.pictures.heads import plot_heads

    views = _measured(arguments)
    tops = arguments.top or [default_top(len(next(iter(views.values())).names))]
    with speaking_as("importance"):
        pairs = [
            Pair(one, other, overlap_of_heads(views[one], views[other], top, seed=arguments.seed))
            for one, other in combinations(views, 2)
            for top in tops
        ]
    record = {
        "arguments": given_arguments(arguments),
        "heads": {name: _as_dict(view) for name, view in views.items()},
        "overlaps": [{"first": p.first, "second": p.second, **p.found.as_dict()} for p in pairs],
    }
    draw = partial(plot_heads, views, [(p.first, p.second, p.found) for p in pairs if p.found.top == tops[0]])
    deliver(record, arguments, draw, partial(_print, views, pairs, arguments.show))
    return 0


def _measured(arguments: argparse.Namespace) -> dict[str, HeadEffects]:
    """Measures what is to be compared: text and speech of one model; of two, text of both and speech of the second."""
    models = [
        loaded(name, arguments.device, arguments.dtype)
        for name in (arguments.model, arguments.tuned)
        if name is not None
    ]
    last = models[-1]
    spoken = read_batches(last, arguments, "speech", arguments.speech) if arguments.speech else []
    if arguments.tuned is None:
        views = {"text": _effects(last, "text", read_batches(last, arguments, "text", arguments.text), arguments)}
    else:
        batches = batches_before_and_after(models[0], last, arguments, arguments.text)
        names = ("text before", "text after")
        views = {name: _effects(m, "text", batches, arguments) for name, m in zip(names, models, strict=True)}
    if spoken:
        views["speech" if arguments.tuned is None else "speech after"] = _effects(last, "speech", spoken, arguments)
    return views


def _effects(
    model: LoadedModel, modality: Modality, batches: Sequence[Mapping[str, Any]], arguments: argparse.Namespace
) -> HeadEffects:
    from ...importance import probe
    from ...importance.heads import ABLATION, HeadEffects

    options = {"ablate": "head", "ablate_with": arguments.ablate_with, "pack": True, "self_test": False}
    with progress_bars() as progress, speaking_as("importance"), model.measuring(modality):
        return HeadEffects.of(probe(model.llm, batches, (ABLATION,), name=modality, progress=progress, **options))


def _as_dict(view: HeadEffects) -> dict[str, Any]:
    low, high = view.limits()
    rows = zip(view.names, view.means.tolist(), low.tolist(), high.tolist(), strict=True)
    return {"examples": len(view.effects), "effects": {name: limits for name, *limits in rows}}


def _print(views: dict[str, HeadEffects], pairs: Sequence[Pair], count: int) -> None:
    heads = len(next(iter(views.values())).names)
    rows = []
    for pair in pairs:
        found, chance = pair.found, pair.found.chance
        rows.append(
            [
                pair.name,
                f"{len(found.shared)} of {found.top}",
                f"{chance.mean:.1f} [{chance.low}, {chance.high}]",
                shown_p(chance.p, chance.p_floor),
                _halves(found),
                f"{found.correlation:.2f}",
            ]
        )
    title = f"{heads} heads, each taken out in turn; the same ones at the top?"
    columns = ["", "shared", "by chance", "p", "half / half", "rank corr."]
    print_table(title, columns, rows)
    print(
        "by chance: mean and 5th to 95th percentile for sets with as many heads in each layer, and the p of sharing "
        f"as many (smallest possible: {', '.join(f'{p.found.chance.p_floor:.2g}' for p in pairs)}); half / half: "
        "shared by halves of the examples, across the two measurements; within the first, within the second"
    )
    for name, view in views.items():
        print(_told(name, view, pairs[0].found.top))
    for pair in pairs:
        _print_heads(views, pair, count)


def _halves(found: HeadOverlap) -> str:
    if (halves := found.halves) is None:
        return "-"
    return f"{halves.across:.1f}; {halves.first:.1f}, {halves.second:.1f}"


def _told(name: str, view: HeadEffects, top: int) -> str:
    """Says how many heads really help, and of the top ones how many are known to."""
    low, _ = view.limits()
    order = (-view.means).argsort(kind="stable")[:top]
    helps = int((view.means > 0).sum())
    return (
        f"{name}: {len(view.effects)} examples; {helps} of {len(view.names)} heads help (the loss rises without them); "
        f"of the top {top}, {int((low[order] > 0).sum())} beyond doubt (90 %)"
    )


def _print_heads(views: dict[str, HeadEffects], pair: Pair, count: int) -> None:
    """Lists the first heads of each kind with both effects."""
    sides = [views[pair.first], views[pair.second]]
    place = {name: index for index, name in enumerate(sides[0].names)}
    kinds = (("both", pair.found.shared), (pair.first, pair.found.only_first), (pair.second, pair.found.only_second))
    rows = [
        [name, kind, *(f"{side.means[place[name]]:+.4f}" for side in sides)]
        for kind, names in kinds
        for name in names[:count]
    ]
    print_table(
        f"{pair.name}: top {pair.found.top}, nats that the loss rises by without a head",
        ["head", "at the top of", pair.first, pair.second],
        rows,
    )


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="textkeep importance heads",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help=f"with TUNED, the model before tuning: {MODEL_HELP}")
    parser.add_argument("tuned", metavar="TUNED", nargs="?", help="after tuning: the same kinds, or an audio LLM")
    sources = "a JSONL manifest, a .txt file, spoken-facts/SPLIT or plain-text/SPLIT"
    parser.add_argument("--text", required=True, metavar="DATA", help=f"written questions or texts: {sources}")
    parser.add_argument("--speech", metavar="DATA", help="spoken questions, for a model that can listen")
    add_example_options(parser, examples=16)
    top = "how many heads each set has; several are compared one after the other (default: a tenth of the heads)"
    parser.add_argument("--top", type=positive, nargs="+", metavar="K", help=top)
    stands = "what stands in for a head; mean: of what it gives on these examples (default: zero)"
    parser.add_argument("--ablate-with", choices=("zero", "mean"), default="zero", help=stands)
    parser.add_argument("--show", type=positive, default=5, help="heads to list, of each kind (default: 5)")
    add_output_options(parser)
    add_model_options(parser)
    return parser
