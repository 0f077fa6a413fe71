"""Where pretrained weights come from: a hub id, a local folder, or an asset that ``textkeep assets`` made."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

ASSET_SCHEME = "asset:"

#: Assets that ship inside the package, by name: (package folder, file).
SHIPPED_ASSETS = {"spoken-facts-adaptor": ("datamodules", "spoken_facts", "adaptor.safetensors")}


def assets_home() -> Path:
    """The folder of fetched assets: ``$TEXTKEEP_HOME``, else the user's cache folder."""
    return Path(os.environ.get("TEXTKEEP_HOME") or platformdirs.user_cache_dir("textkeep"))


def resolve_pretrained(source: str) -> str:
    """Turns a model setting into what ``from_pretrained`` (or a safetensors reader) takes.

    Args:
        source: A Hugging Face hub id, a local path, or ``asset:NAME``.

    Returns:
        The path of the asset, or ``source`` as it is.

    Raises:
        FileNotFoundError: If the asset has not been fetched yet; the message names the command that fetches it.
    """
    if not source.startswith(ASSET_SCHEME):
        return source
    name = source.removeprefix(ASSET_SCHEME)
    if name in SHIPPED_ASSETS:
        path = Path(__file__).resolve().parent.parent.joinpath(*SHIPPED_ASSETS[name])
        hint = "it ships with the package; is the checkout complete?"
    else:
        path = assets_home() / "models" / name
        hint = f"run `textkeep assets {name}`"
    if not path.exists():
        raise FileNotFoundError(f"asset '{name}' is not here ({path}): {hint}")
    return str(path)
