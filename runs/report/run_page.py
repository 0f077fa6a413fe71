"""The page about one or several runs: its figures and tables, and the text around them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from ...evaluation import MODALITIES
from ..run import Run
from .figures.accuracy import accuracy
from .figures.answer_loss import answer_loss
from .figures.budget import budget
from .figures.concentration import concentration
from .figures.frontier import frontier
from .figures.hearing_gap import hearing_gap
from .figures.heat_map import heat_maps
from .figures.kinds import kinds
from .figures.layer_ratio import layer_ratio
from .figures.probe_loss import probe_loss
from .figures.probe_shares import probe_shares
from .figures.profile import profile
from .figures.removal import removal
from .figures.shift import shift
from .figures.training import training
from .flips import flipped_parts
from .numbers import NATS
from .outcome_part import outcome_part
from .page import part, render
from .section import Chapter, sections_of
from .tables.causal import causal_table
from .tables.paired_differences import paired_table
from .tables.probes import probe_table
from .tables.scores import score_tables
from .tables.settings import config_difference
from .verdict import headline, verdict

PACKAGES = ("textkeep", "torch", "lightning", "transformers", "peft", "plotly")


def _removal_missing(runs: Sequence[Run]) -> str:
    run = runs[0]
    source = (run.config.get("data") or {}).get("val")
    data = source if isinstance(source, str) else "DATA"
    command = f"textkeep importance removal {run.path} --data {data} -o {run.path}/importance/removal.json"
    return f"Not made for this run. To make it: `{command}`"


CHAPTERS: tuple[Chapter[Sequence[Run]], ...] = (
    Chapter(
        "Frontier",
        (frontier, score_tables, paired_table),
        "From the untouched model (open) to the end of the run (filled).",
        "No evaluation of both modalities was found: the callback Retention writes them.",
    ),
    Chapter(
        "Answers",
        (accuracy, answer_loss, hearing_gap),
        "The same questions, written and spoken; an answer is correct if it contains an accepted answer.",
        "No evaluation was found: the callback Retention writes them.",
    ),
    Chapter("Budget of text", (budget,), "What TextBudget measured, and the weight that it set."),
    Chapter(
        "Probes",
        (probe_table, probe_shares, probe_loss),
        "What training did on each probe. Text is lost if plain text becomes harder to predict; on "
        "questions, a model also fits the form of the answers.",
    ),
    Chapter(
        "Importance",
        (heat_maps, profile, shift, layer_ratio, causal_table),
        "Where in the LLM importance lies before, during and after it learns speech.",
        "No importance measurement was found: the callback ImportanceTracker writes them.",
    ),
    Chapter(
        "Structure",
        (kinds, concentration),
        "How importance is distributed inside the layers.",
        "No importance snapshots were found.",
    ),
    Chapter(
        "Removal test",
        (removal,),
        "What switching weights off does to the loss: the top ones should matter most.",
        _removal_missing,
    ),
    Chapter("Training", (training,), missing="No training loss was logged."),
)
"""The sections, in the order of the page."""


def run_page(runs: Sequence[Run]) -> str:
    """Writes the page about runs, in the given order."""
    first = outcome_part(runs)
    verdicts = [(run, found, headline(found, first.tells_text)) for run in runs for found in [verdict(run)]]
    nats = not first.tells_text and any("nats" in finding.text for _, found, _ in verdicts for finding in found)
    return render(
        " · ".join(run.name for run in runs),
        "report",
        sections_of(CHAPTERS, runs),
        before=first.shown + part("verdict", verdicts=verdicts, nats=NATS if nats else ""),
        after=part("flips", flipped=flipped_parts(runs), modalities=MODALITIES, several=len(runs) > 1)
        + part("configuration", runs=runs, difference=config_difference(runs), versions=_versions()),
        lead=first.figures,
    )


def _versions() -> dict[str, str]:
    """Returns the versions of the software that makes the report."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
