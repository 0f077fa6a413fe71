"""``textkeep dashboard --entity E --project P``: saves a W&B workspace that shows a project's runs.

Sections: Importance, Shift, Retention, Frontier, Training, Learning rates by layer. Heat maps of finished runs use a
Vega chart, whose preset is also stored for the entity. ``--dry-run`` needs no login and prints the workspace as JSON.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..foundation.errors import UserError
from .command_parser import CommandParser

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Workspace

    from ..runs.dashboard.names import MetricNames

NEEDS = "textkeep dashboard needs wandb-workspaces; pip install 'textkeep[dashboard]' brings it"


def main(argv: list[str]) -> int:
    """Saves the workspace, or prints it.

    Args:
        argv: The words after ``textkeep dashboard``.

    Returns:
        The exit code.

    Raises:
        UserError: Without wandb-workspaces, without a login, or when W&B refuses.
    """
    arguments = _parser().parse_args(argv)
    if importlib.util.find_spec("wandb_workspaces") is None:
        raise UserError(NEEDS)
    if not (arguments.entity and arguments.project):
        raise UserError("dashboard: --entity and --project are empty; allowed: the names that W&B shows")
    os.environ.setdefault("WANDB_SILENT", "true")

    from ..runs.dashboard.names import MetricNames
    from ..runs.dashboard.workspace import build, spec

    if arguments.run is not None:
        names = MetricNames.of_run(arguments.run)
    else:
        names = MetricNames.assumed(arguments.probes, arguments.estimators, arguments.layers)
    workspace = build(arguments.entity, arguments.project, names)
    if arguments.dry_run:
        print(json.dumps(spec(workspace), indent=1))
        return 0
    _save(workspace, names, arguments.report)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="textkeep dashboard",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--entity", required=True, help="user or team that owns the project")
    parser.add_argument("--project", required=True, help="project that holds the runs")
    parser.add_argument("--run", type=Path, help="a run directory, to take probes, estimators and layers from")
    parser.add_argument("--probes", nargs="+", metavar="NAME", default=["heldout_text", "indomain_text", "speech"])
    parser.add_argument("--estimators", nargs="+", metavar="NAME", default=["taylor", "fisher", "signed_taylor"])
    parser.add_argument("--layers", type=int, default=32, help="number of layers of the LLM (default: %(default)s)")
    parser.add_argument("--report", action="store_true", help="also save a W&B report that embeds the panels")
    parser.add_argument("--dry-run", action="store_true", help="print the workspace as JSON and save nothing")
    return parser


def _save(workspace: Workspace, names: MetricNames, with_report: bool) -> None:
    """Saves the chart preset, the workspace and, on request, a report; prints where they are."""
    import wandb

    from ..runs.dashboard.heat_map_chart import save_preset
    from ..runs.dashboard.report import build_report

    if not wandb.login(prompt=False, verify=False):
        raise UserError("not logged in to W&B: run `wandb login` or set WANDB_API_KEY; --dry-run needs no login")
    try:
        if problem := save_preset(workspace.entity):
            print(f"chart preset not saved: {problem}")
        print(f"workspace: {workspace.save().url}")
        if with_report:
            print(f"report: {build_report(workspace, names).save(draft=False).url}")
    except Exception as error:  # wandb's client also raises classes that it does not make public
        raise UserError(f"W&B refused: {' '.join(str(error).split())}") from error
