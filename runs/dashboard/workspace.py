"""The workspace: sections and panels over ``trainer/global_step``."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws

from ...foundation.run_names import (
    BUDGET_PREFIX,
    FORGETTING,
    HEAT_MAP_CHART,
    HEAT_MAP_FIELDS,
    HEAT_MAP_TABLE,
    MISALIGNMENT,
    STEP_METRIC,
    TRAIN_LOSS,
    cross_entropy,
    importance_key,
    importance_picture,
    probe_key,
    stage_key,
)
from .names import MetricNames

NAME = "TextKeep"
SHIFTS = {
    "wasserstein": "Wasserstein distance over depth",
    "centre_move": "Move of the centre",
    "log_total_ratio": "Log ratio of the totals (below 0: suppression)",
}


def build(entity: str, project: str, names: MetricNames) -> ws.Workspace:
    """Builds the workspace of a project, without saving anything or contacting a server."""
    return ws.Workspace(
        entity=entity,
        project=project,
        name=NAME,
        auto_generate_panels=False,
        settings=ws.WorkspaceSettings(x_axis=STEP_METRIC, group_by_prefix="first", max_runs=10),
        sections=[
            _section("Importance", importance(entity, names), is_open=True),
            _section("Shift", shift(names), is_open=True),
            _section("Retention", retention(), is_open=True),
            _section("Frontier", frontier()),
            _section("Training", training()),
            _section("Learning rates by layer", [_lines("Learning rates", names.rates)]),
        ],
    )


def spec(workspace: ws.Workspace) -> dict[str, Any]:
    """Returns the workspace as W&B stores it, without the random ids of panels and sections."""
    text = workspace._to_model().spec.model_dump_json(by_alias=True, exclude_none=True)
    return _without_ids(json.loads(text))


def _without_ids(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_ids(item) for key, item in value.items() if key not in {"__id__", "id"}}
    return [_without_ids(item) for item in value] if isinstance(value, list) else value


def importance(entity: str, names: MetricNames) -> list[Any]:
    """Builds the pictures, the Vega heat map of finished runs, and a line for each layer."""
    media = [importance_picture(probe, "heat_map") for probe in names.probes]
    panels: list[Any] = [wr.MediaBrowser(title="Layer by step, live", media_keys=media, num_columns=1)]
    panels += [heat_map(entity, probe) for probe in names.probes]
    for probe in names.probes:
        for estimator in names.estimators:
            panels.append(_lines(f"{probe}, {estimator}: share of each layer", names.of_layers(probe, estimator)))
        # Covers layers that this workspace does not know; not every W&B plan draws such panels.
        pattern = importance_key(re.escape(probe), re.escape(names.estimators[0]), r"layer_\d+")
        title = f"{probe}, {names.estimators[0]}: all layers"
        panels.append(wr.LinePlot(title=title, x=STEP_METRIC, metric_regex=pattern))
        totals: list[Any] = [importance_key(probe, estimator, "total") for estimator in names.estimators]
        panels.append(wr.LinePlot(title=f"{probe}: totals", x=STEP_METRIC, y=totals, log_y=True))
    return panels


def heat_map(entity: str, probe: str) -> Any:
    """Makes the Vega heat map of a probe, over the table that a run logs at its end."""
    return wr.CustomChart(
        query={"summaryTable": {"tableKey": importance_picture(probe, HEAT_MAP_TABLE)}},
        chart_name=f"{entity}/{HEAT_MAP_CHART}",
        chart_fields={name: name for name in HEAT_MAP_FIELDS},
        chart_strings={"title": f"Layer shares of importance, {probe} (%)"},
    )


def shift(names: MetricNames) -> list[Any]:
    """Draws the shift against step 0 beside its scales, its paired p-value, and the loss on each probe."""
    panels = []
    for probe in names.probes:
        keys = [importance_key(probe, e, kind) for e in names.estimators for kind in ("js", "js_null", "js_expected")]
        title = f"{probe}: Jensen-Shannon distance, between halves of the probe (js_null), of noise alone (js_expected)"
        panels.append(_lines(title, keys))
    tests = [importance_key(probe, e, "js_p") for probe in names.probes for e in names.estimators]
    panels.append(_lines("Did these examples move? Paired p of the Jensen-Shannon distance", tests))
    for measure, title in SHIFTS.items():
        panels.append(_lines(title, [importance_key(p, names.estimators[0], measure) for p in names.probes]))
    panels.append(_lines("Loss on the probes", [probe_key(probe, "loss") for probe in names.probes]))
    return panels


def retention() -> list[Any]:
    """Draws what is still known in text, what is understood as speech, and whether the model listens."""
    return [
        _lines("Accuracy", [_val("text_accuracy"), _val("speech_accuracy")]),
        _lines("Text accuracy kept", [_val("text_accuracy_kept")]),
        _lines("Loss on the answers", [_val("text_answer_loss"), _val("speech_answer_loss")]),
        _lines("Hearing gap", [_val("hearing_gap")]),
        _lines("Forgetting and misalignment (KL)", [FORGETTING, MISALIGNMENT]),
        wr.LinePlot(title="Budget of text", x=STEP_METRIC, metric_regex=f"{BUDGET_PREFIX}.*"),
    ]


def frontier() -> list[Any]:
    """Draws one point per run: what was gained against what was lost."""
    return [
        wr.ScatterPlot(title="Speech against text", x=_val("text_accuracy"), y=_val("speech_accuracy")),
        wr.ScatterPlot(title="Speech against text kept", x=_val("text_accuracy_kept"), y=_val("speech_accuracy")),
        wr.ScatterPlot(title="Misalignment against forgetting", x=FORGETTING, y=MISALIGNMENT),
        wr.LinePlot(title="The path of each run", x=_val("text_accuracy"), y=[_val("speech_accuracy")]),
    ]


def training() -> list[Any]:
    """Draws the losses of training and validation."""
    return [
        _lines("Training loss", [TRAIN_LOSS]),
        _lines("Validation", [_val(cross_entropy(modality)) for modality in ("speech", "text")]),
    ]


def _val(name: str) -> str:
    return stage_key("val", name)


def _lines(title: str, keys: Sequence[str]) -> Any:
    return wr.LinePlot(title=title, x=STEP_METRIC, y=list(keys))


def _section(name: str, panels: list[Any], is_open: bool = False) -> ws.Section:
    layout = ws.SectionLayoutSettings(columns=2, rows=max(1, min(4, (len(panels) + 1) // 2)))
    axis = ws.SectionPanelSettings(x_axis=STEP_METRIC)
    return ws.Section(name=name, panels=panels, is_open=is_open, layout_settings=layout, panel_settings=axis)
