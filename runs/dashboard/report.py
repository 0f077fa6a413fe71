"""A W&B report that embeds the panels of the workspace."""

from __future__ import annotations

from typing import Any

import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws

from .names import MetricNames
from .workspace import frontier, heat_map, importance, retention, shift, training


def build_report(workspace: ws.Workspace, names: MetricNames) -> wr.Report:
    """Builds the report, which asks the server for the project's id.

    Args:
        workspace: Defines entity and project.
        names: Of the metrics.
    """
    parts = {
        "What was kept and what was gained": [*retention(), *frontier()],
        "Where importance is": [
            importance(workspace.entity, names)[0],
            *(heat_map(workspace.entity, probe) for probe in names.probes),
        ],
        "How it moved": shift(names),
        "Training": training(),
    }
    blocks: list[Any] = []
    for title, panels in parts.items():
        runs = wr.Runset(entity=workspace.entity, project=workspace.project)
        blocks += [wr.H2(text=title), wr.PanelGrid(runsets=[runs], panels=panels)]
    return wr.Report(
        entity=workspace.entity,
        project=workspace.project,
        title="TextKeep: where the text knowledge lives",
        description="Panels of the TextKeep workspace; made by textkeep dashboard --report.",
        blocks=blocks,
        width="fluid",
    )
