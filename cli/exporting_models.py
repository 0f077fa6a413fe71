"""``textkeep export MODEL --base BASE``: a model's own folder, its text LLM brought back to the one it came from."""

from __future__ import annotations

import argparse
from importlib.metadata import version
from pathlib import Path

from ..foundation.errors import UserError
from ..foundation.outputs import check_output
from .errors import speaking_as
from .with_base import open_two


def export_model(arguments: argparse.Namespace, reverted: list[str]) -> None:
    """Writes the folder.

    Args:
        arguments: Of ``textkeep export``, with ``--base``.
        reverted: Names of the parameters to revert.

    Raises:
        UserError: If the two do not match, or the output exists and is not such a folder.
    """
    from ..inference.two_models import Mixtures, folder_of
    from ..lightning_modules.saving.edited_folder import REPAIR, ModelFolder

    given = [name for name in ("dtype", "without_inserted") if getattr(arguments, name)]
    if given:
        option = given[0].replace("_", "-")
        raise UserError(f"export: --{option} goes with a run; with --base the weights keep their stored types")
    target: Path = arguments.out
    check_output("export: -o", target, arguments.overwrite, folder=True)
    if target.exists() and any(target.iterdir()) and not (target / REPAIR).is_file():
        raise UserError(
            f"export: -o {target} exists and is no repaired model; allowed: a new folder, or one to replace"
        )
    with speaking_as("export"):
        models = Mixtures(*open_two(str(arguments.run), arguments.base, "cpu"))
        folder = ModelFolder(folder_of(str(arguments.run)))
    places = folder.places(dict(models.tuned.llm.named_parameters()))
    models.change.apply(arguments.alpha, reverted)
    parameters = dict(models.tuned.llm.named_parameters())
    values = {place: parameters[name] for name in models.change.names for place in places[name]}
    origin = {
        "model": str(arguments.run),
        "base": arguments.base,
        "alpha": arguments.alpha,
        "reverted": reverted,
        "textkeep": version("textkeep"),
    }
    folder.write(target, values, origin)
    size = sum(file.stat().st_size for file in target.rglob("*") if file.is_file()) / 2**20
    print(f"{target}: {len(models.change.names)} of {len(parameters)} weights between the two, {size:.0f} MiB")
