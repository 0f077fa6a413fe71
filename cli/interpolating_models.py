"""``textkeep interpolate MODEL --base BASE``: a trained model on the way back to the one it came from."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ..foundation.files import write_json
from ..foundation.outputs import check_output
from .errors import speaking_as
from .interpolated import FIGURES, Point, print_points
from .output import deliver, say
from .with_base import open_two

if TYPE_CHECKING:
    from ..inference.two_models import Mixtures, ModelQuestions


def interpolate_models(arguments: argparse.Namespace, points: Sequence[Point]) -> None:
    """Scores every mixture of two models that was asked for.

    Args:
        arguments: Of ``textkeep interpolate``, with ``--base``.
        points: The mixtures.

    Raises:
        UserError: If one cannot be loaded, is a run, or they do not fit.
    """
    from ..inference.two_models import Mixtures
    from ..runs.pictures.interpolation import plot_interpolation

    figures = arguments.out / FIGURES if arguments.out else None
    check_output("interpolate: -o", figures, arguments.overwrite)
    check_output("interpolate: --plot", arguments.plot, arguments.overwrite)
    with speaking_as("interpolate"):
        models = Mixtures(*open_two(str(arguments.run), arguments.base, arguments.device))
        questions = _questions(models, arguments)
    if not models.hears:
        say(f"{arguments.run} {models.deafness}: text alone is scored")
    rows = _score(models, questions, points, arguments)
    found = {
        "model": str(arguments.run),
        "base": arguments.base,
        "questions": arguments.questions,
        "heldout": arguments.heldout,
        "points": [{"name": p.name, "alpha": p.alpha, "reverted": list(p.reverted), **rows[p.name]} for p in points],
    }
    if figures is not None:
        write_json(found, figures)
        say(f"figures: {figures}")
    asked = arguments.questions or "none asked"
    deliver(found, arguments, partial(plot_interpolation, found), partial(print_points, found, asked))


def _questions(models: Mixtures, arguments: argparse.Namespace) -> ModelQuestions:
    from ..inference import read_examples
    from ..inference.two_models import ModelQuestions

    skip, count = arguments.heldout_skip, arguments.heldout_examples
    heldout = read_examples(arguments.heldout, "text", count, skip=skip)
    asked = read_examples(arguments.questions, "text", arguments.items) if arguments.questions else []
    models.check_texts([*heldout, *asked])
    return ModelQuestions(heldout, asked)


def _score(
    models: Mixtures, questions: ModelQuestions, points: Sequence[Point], arguments: argparse.Namespace
) -> dict[str, Any]:
    from ..inference.edit_scoring import summaries

    scored = {}
    for number, point in enumerate(points, start=1):
        with speaking_as("interpolate"):
            models.change.apply(point.alpha, point.reverted)
            scored[point.name] = questions.score(models)
        if not arguments.json:
            print(f"{number} of {len(points)}: {point.name}, {scored[point.name].seconds:.0f} s", flush=True)
    return summaries(scored)
