"""Where assets are: fetched models, voices and data, and the data that ships with the package.

No other file knows these paths.
"""

from __future__ import annotations

import os
from pathlib import Path

ASSET = "asset:"
"""Prefix of an asset's name where a hub id or a path is also possible."""

KINDS = ("models", "tools")
"""Folders in the assets' home."""

_DATA = Path(__file__).resolve().parents[1] / "datamodules"

SPOKEN_FACTS = _DATA / "spoken_facts"
"""The embedded data set: manifests, clips, an aligned adaptor."""

PLAIN_TEXT = "plain-text/"
"""Prefix of the embedded sets of plain text, which hold passages and no questions."""

EMBEDDED = {"spoken-facts/": SPOKEN_FACTS, PLAIN_TEXT: _DATA / "plain_text"}
"""Prefix of the splits of an embedded data set -> its folder."""

SHIPPED = {"spoken-facts-adaptor": SPOKEN_FACTS / "adaptor.safetensors"}
"""Assets inside the package, by name."""


def home() -> Path:
    """Returns the root of the fetched assets: ``$TEXTKEEP_HOME`` (``~`` is the user's home), or the user's cache."""
    chosen = os.environ.get("TEXTKEEP_HOME")
    if chosen:
        return Path(chosen).expanduser().absolute()
    from platformdirs import user_cache_path

    return user_cache_path("textkeep")


def locate(name: str) -> Path:
    """Finds an asset.

    Args:
        name: Its name in the catalogue, for example ``flite``.

    Returns:
        Its folder, which is complete (assets appear by renaming), or the file if it ships with the package.

    Raises:
        FileNotFoundError: If it was not fetched; the message names the command that does so.
    """
    if (shipped := SHIPPED.get(name)) is not None:
        if shipped.exists():
            return shipped
        raise FileNotFoundError(f"asset '{name}' is not here ({shipped}): it ships with the package; is it complete?")
    for kind in KINDS:
        folder = home() / kind / name
        if name and folder.is_dir():
            return folder
    raise FileNotFoundError(f"asset '{name}' is not here ({home()}): run `textkeep assets {name}`")


def resolve(source: str) -> str:
    """Turns the name of an asset into its path; anything else (a hub id, a path) is returned as it is.

    Args:
        source: ``asset:NAME``, a hub id or a path.

    Raises:
        FileNotFoundError: If the asset was not fetched.
    """
    return str(locate(source.removeprefix(ASSET))) if source.startswith(ASSET) else source


def is_embedded(source: str) -> bool:
    """Returns whether a name refers to a split of an embedded data set."""
    return source.startswith(tuple(EMBEDDED))


def embedded_split(source: str) -> Path:
    """Finds a split of an embedded data set.

    Args:
        source: ``spoken-facts/SPLIT`` or ``plain-text/SPLIT``.

    Raises:
        FileNotFoundError: If there is no such split; the message lists the existing ones.
    """
    prefix = next(prefix for prefix in EMBEDDED if source.startswith(prefix))
    path = EMBEDDED[prefix] / f"{source.removeprefix(prefix)}.jsonl"
    if not path.is_file():
        splits = ", ".join(prefix + found.stem for found in sorted(EMBEDDED[prefix].glob("*.jsonl")))
        allowed = splits or "none is installed"
        raise FileNotFoundError(f"{source}: the embedded data set has no such split (allowed: {allowed})")
    return path
