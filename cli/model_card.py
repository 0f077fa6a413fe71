"""``textkeep card MODEL --base BASE``: what a model kept of the text LLM that it came from, measured on both."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ..foundation.run_names import FORGETTING, MISALIGNMENT
from .errors import speaking_as
from .output import progress_bars, say
from .with_base import open_two

if TYPE_CHECKING:
    from ..datamodules import Example
    from ..evaluation import RetentionSummary
    from ..importance import Snapshot
    from ..importance.lineage import Lineage
    from ..inference.two_models import TwoModels
    from ..runs.card.card import Card
    from ..runs.card.facts import Fact

TEXT, CHOICES = "plain-text/evaluation", "spoken-facts/choices"
_SHOWN = ("accuracy", "accuracy_change")
ESTIMATOR = "taylor"


def card_of_model(arguments: argparse.Namespace) -> Card:
    """Measures both models and makes the card.

    Args:
        arguments: Of ``textkeep card``, with ``--base``.

    Raises:
        UserError: If one cannot be loaded, or they write the same text with other ids.
    """
    from ..importance.lineage import lineage
    from ..inference.merging import merge
    from ..inference.two_models import TwoModels
    from ..runs.card.card import Card

    with speaking_as("card"):
        models = TwoModels(*open_two(arguments.run, arguments.base, arguments.device, runs=True))
        merge(models.tuned)  # a run's LoRA; of one behind a gate there are no matrices to measure, and it is refused
        found: dict[str, Fact] = {}
        for measured in (_texts, _choices, _questions, _tasks):
            for fact in measured(models, arguments):
                found.setdefault(fact.name, fact)
        related = lineage(models.base.llm, models.reader.llm)
    about = {"model": arguments.run, "base": arguments.base, "lineage": _related(related)}
    if not models.hears:
        say(f"{arguments.run} {models.deafness}: the card is of its text alone")
    told = (
        f"Lineage: {related.verdict}; the cosine of its text LLM's weights with those of {arguments.base} is "
        f"{related.whole.cosine:.4f} ({related.counts['equal']} of {len(related.matrices)} matrices are equal)."
    )
    return Card(about, f"against `{arguments.base}`, in the words of its chat template", found, (told,))


def _related(found: Lineage) -> dict[str, Any]:
    told = found.as_dict()
    return {key: told[key] for key in ("verdict", "cosine", "chance", "change", "counts")}


def _read(models: TwoModels, source: str, limit: int | None) -> list[Example]:
    from ..inference import read_examples

    examples = read_examples(source, "text", limit)
    models.check_texts(examples)
    return examples


def _texts(models: TwoModels, arguments: argparse.Namespace) -> Iterator[Fact]:
    """Yields the rise of the loss on each plain text, and of the first one forgetting and the shift of importance."""
    from ..evaluation import loss_increase, summarize_divergences
    from ..inference.kept_text import forgetting_of, losses_of
    from ..runs.card.facts import TEXT_LOSS_INCREASE, Fact

    size = arguments.batch_size
    for number, source in enumerate(arguments.text or [TEXT]):
        examples = _read(models, source, arguments.limit)
        before, after = (losses_of(model, examples, size) for model in (models.base, models.reader))
        rise, where = loss_increase(before, after).increase, f"{len(examples)} passages of {source}, nats a token"
        yield Fact(TEXT_LOSS_INCREASE, rise, where)
        yield Fact(f"{TEXT_LOSS_INCREASE}/{_short(source)}", rise, where)
        if number == 0:
            kl = summarize_divergences(forgetting_of(models, examples, size)).interval(FORGETTING)
            yield Fact(FORGETTING, kl, where)
            yield _shift(models, examples[: arguments.examples], source, size)


def _short(source: str) -> str:
    """Returns the name by which a limit may name a set: of a path its last part without an ending."""
    from pathlib import Path

    return Path(source).stem if Path(source).suffix else source.replace("/", "_").replace("-", "_")


def _shift(models: TwoModels, examples: list[Example], source: str, size: int) -> Fact:
    """Measures how far importance moved, as in a run: the Jensen-Shannon distance of the layer shares."""
    from ..evaluation import shown_p
    from ..importance import compare, probe
    from ..runs.card.facts import shift_fact

    batches = list(models.base.inputs(examples, "text", size))

    def measured(llm: Any) -> Snapshot:
        with progress_bars() as progress:
            return probe(llm, batches, (ESTIMATOR,), name=source, progress=progress, vectors=False)

    shift = compare(measured(models.base.llm), measured(models.reader.llm), ESTIMATOR)
    js = shift.metrics["js"]
    test = "" if js.p is None else f"paired p {shown_p(js.p, shift.p_floor or 0.0)}"
    where = f"{len(examples)} passages of {source}"
    return shift_fact(_short(source), asdict(js), ESTIMATOR, where, (js.p, test))


def _choices(models: TwoModels, arguments: argparse.Namespace) -> Iterator[Fact]:
    """Yields the written multiple choice that is right, and what became of it."""
    source = arguments.choices or CHOICES
    if source == "none":
        return
    from ..evaluation import mcnemar, shown_p, summarize
    from ..inference.kept_text import choices_of
    from ..runs.card.facts import Fact

    before, after = (
        choices_of(model, source, arguments.limit, arguments.batch_size) for model in (models.base, models.reader)
    )
    summary, where = summarize(after, before), f"{len(after)} items of {source}, written"
    p = mcnemar([bool(r.correct) for r in before], [bool(r.correct) for r in after]).p_value
    for name in _SHOWN:
        test = (p, f"McNemar p {shown_p(p)}") if name == "accuracy_change" else (None, "")
        yield Fact(f"choices/{name}", summary.interval(f"text_{name}"), where, *test)


def _questions(models: TwoModels, arguments: argparse.Namespace) -> Iterator[Fact]:
    """Yields the answers that are right, written and, where the model can listen, spoken, and then misalignment."""
    if arguments.questions is None:
        return
    from ..evaluation import summarize
    from ..evaluation.statistics import bootstrap_ratio
    from ..inference.kept_text import misalignment_of
    from ..inference.two_models import ModelQuestions, TwoModels
    from ..runs.card.facts import Fact

    asked = _read(models, arguments.questions, arguments.limit)
    questions = ModelQuestions([], asked, arguments.batch_size)
    base = TwoModels(models.base, models.base)
    summary: RetentionSummary = summarize(questions.score(models).records, questions.records(base, "text"))
    for name in summary.values:
        yield Fact(name, summary.interval(name), f"{summary.items} questions of {arguments.questions}")
    spoken = [example for example in asked if example.has("speech")] if models.hears else []
    if spoken:
        sums, tokens = zip(*misalignment_of(models.tuned, spoken, arguments.batch_size), strict=True)
        yield Fact(MISALIGNMENT, bootstrap_ratio(sums, tokens), f"{len(spoken)} questions of {arguments.questions}")


def _tasks(models: TwoModels, arguments: argparse.Namespace) -> Iterator[Fact]:
    """Yields lm-eval's scores of the model, and those of its base by the same name with ``base/`` before it."""
    if not arguments.tasks:
        return
    from ..inference.benchmarking import benchmark
    from ..runs.card.facts import BENCHMARK, Fact

    for prefix, model in (("", models.reader), ("base/", models.base)):
        scores = benchmark(model, arguments.tasks, arguments.limit, batch_size=arguments.batch_size)
        limits = scores.intervals()
        for key, value in scores.values.items():
            yield Fact(f"{BENCHMARK}{prefix}{key}", (value, *limits[key]), "lm-eval")
