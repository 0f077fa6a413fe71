"""Where assets lie: ``$TEXTKEEP_HOME``, or the user's cache folder."""

from __future__ import annotations

import os
from pathlib import Path

KINDS = ("models", "tools")


def home() -> Path:
    """Root of all assets: ``$TEXTKEEP_HOME``, by default the user's cache folder ``textkeep``."""
    chosen = os.environ.get("TEXTKEEP_HOME")
    if chosen:
        return Path(chosen).expanduser().absolute()
    from platformdirs import user_cache_path

    return user_cache_path("textkeep")


def locate(name: str) -> Path:
    """Folder of an asset.

    Args:
        name: Name in the catalogue, for example ``flite``.

    Returns:
        The folder, which is complete: assets appear by renaming.

    Raises:
        FileNotFoundError: If it was not fetched.
    """
    for kind in KINDS:
        folder = home() / kind / name
        if name and folder.is_dir():
            return folder
    raise FileNotFoundError(f"asset {name!r} is not here: run `textkeep assets {name}`")
