"""The sections of a report: which figures they hold and how each is to be read."""

from __future__ import annotations

from collections.abc import Sequence

from ..run import Run
from .figures.evaluation_figures import accuracies, answer_losses, hearing_gaps, training
from .figures.frontier import AXES, frontiers
from .figures.importance_figures import SHIFTS, VIEWS, heat_maps, measured_steps, probe_losses, profiles, ratios, shifts
from .figures.structure_figures import concentration, kinds, removals
from .section import Plot, Section
from .verdict import SPLITS

PAIR = ("probe", "estimator")


def frontier_section(runs: Sequence[Run]) -> Section:
    """What was gained against what was lost."""
    section = Section("Frontier", "From the untouched model (open) to the end of the run (filled).")
    figures = frontiers(runs)
    section.controls = {"split": _splits(runs), "axes": {a: t for a, t in AXES.items() if _occurs(a, figures)}}
    caption = "Bars: 95 % intervals at the end. Each point is one evaluation."
    section.add(Plot("frontier", "Speech against text", caption, ("split", "axes"), figures))
    if not section.plots:
        section.missing = "No evaluation of both modalities was found: the callback Retention writes them."
    return section


def answers_section(runs: Sequence[Run]) -> Section:
    """Accuracies, losses and the hearing gap over steps."""
    section = Section("Answers", "The same questions, written and spoken; right is what holds a gold answer.")
    section.controls["split"] = _splits(runs)
    bars = "Bars: 95 % intervals"
    section.add(Plot("accuracy", "Accuracy", f"{bars} (Wilson).", ("split",), accuracies(runs)))
    caption = f"{bars} (bootstrap over items)."
    section.add(Plot("answer-loss", "Loss on the answers", caption, ("split",), answer_losses(runs)))
    caption = (
        "Loss on the answers with the clips exchanged among the questions, minus with the right clips. "
        f"A model that does not listen stays at 0. {bars} (bootstrap over items)."
    )
    section.add(Plot("hearing", "Hearing gap", caption, ("split",), hearing_gaps(runs)))
    if not section.plots:
        section.missing = "No evaluation was found: the callback Retention writes them."
    return section


def importance_section(runs: Sequence[Run]) -> Section:
    """Where the importance lies and how it moves."""
    section = Section(
        "Importance", "Where in the LLM the score of its weights lies, before, while and after it learns speech."
    )
    section.controls = {**_pairs(runs), "view": VIEWS, "measure": SHIFTS}
    section.steps = measured_steps(runs)
    for index, (run, figures) in enumerate(zip(runs, heat_maps(runs), strict=True)):
        title = "Layer by step" + (f": {run.name}" if len(runs) > 1 else "")
        caption = "One column a measurement; the frame is the slider's step."
        section.add(Plot(f"heat-{index}", title, caption, (*PAIR, "view"), figures, "mark"))
    caption = "Dotted: first measurement. Solid: the slider's step, at first the last."
    section.add(Plot("profile", "Profile of the layers", caption, PAIR, profiles(runs), "profile"))
    caption = "Bars: 90 % intervals. Grey: a scale, what another probe of half the size would differ by."
    caption += " Whether these examples moved is a paired test: the verdict has it."
    section.add(Plot("shift", "Shift over steps", caption, (*PAIR, "measure"), shifts(runs)))
    caption = "Below 1, a layer lost importance in absolute terms. Bars: 90 % paired bootstrap over examples."
    section.add(Plot("ratio", "Layer totals, end over start", caption, PAIR, ratios(runs)))
    losses = probe_losses(runs)
    caption = "To be read beside the shift: importance on items that a model has fitted falls by itself."
    section.add(Plot("probe-loss", "Loss on the probes", caption, (), {"": losses} if losses else {}))
    if not section.plots:
        section.missing = "No importance measurement was found: the callback ImportanceTracker writes them."
    return section


def structure_section(runs: Sequence[Run]) -> Section:
    """What kinds of matrices, and how few of their rows and columns, hold the importance."""
    section = Section("Structure", "How the importance is spread inside the layers.")
    section.controls = dict(_pairs(runs))
    caption = "q, k, v, o: attention. gate, up, down: MLP. Pale: first measurement."
    section.add(Plot("kinds", "Kinds of matrices", caption, PAIR, kinds(runs)))
    caption = "0: all rows (columns) weigh the same; towards 1: few hold all. Mean over a layer's matrices."
    section.add(Plot("gini", "Concentration on rows and columns", caption, PAIR, concentration(runs)))
    if not section.plots:
        section.missing = "No importance snapshots were found."
    return section


def removal_section(runs: Sequence[Run]) -> Section:
    """The removal test, where one was made."""
    section = Section("Removal test", "What switching weights off does to the loss: the top ones should matter most.")
    figures = removals(runs)
    section.controls = {"test": {name: name for name in figures}}
    caption = "Increase over the untouched weights' loss, on examples other than those scored. Bars: 90 % bootstrap."
    section.add(Plot("removal", "Top, random and bottom weights off", caption, ("test",), figures))
    if not section.plots:
        run = runs[0].path
        section.missing = (
            "Not made for this run. To have it here: "
            f"textkeep importance removal {run} --data {_data(runs[0])} -o {run}/importance/removal.json"
        )
    return section


def training_section(runs: Sequence[Run]) -> Section:
    """The losses of training."""
    section = Section("Training", "")
    figure = training(runs)
    section.add(Plot("training", "Losses while training", "", (), {"": figure} if figure else {}))
    if not section.plots:
        section.missing = "No training loss was logged."
    return section


def _data(run: Run) -> str:
    source = (run.config.get("data") or {}).get("val")
    return source if isinstance(source, str) else "DATA"


def _splits(runs: Sequence[Run]) -> dict[str, str]:
    return {s: f"{SPLITS[s]} questions" for s in SPLITS if any(s in run.evaluations for run in runs)}


def _pairs(runs: Sequence[Run]) -> dict[str, dict[str, str]]:
    pairs = list(dict.fromkeys(pair for run in runs for pair in run.importance.pairs))
    return {"probe": {p: p for p, _ in pairs}, "estimator": {e: e for _, e in pairs}}


def _occurs(axes: str, figures: dict[str, dict[str, object]]) -> bool:
    return any(key.split("|")[1] == axes for key in figures)
