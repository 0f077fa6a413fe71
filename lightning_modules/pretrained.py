"""Where pretrained weights come from: a hub id, a local folder, or an asset that ``textkeep assets`` made."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def reading(setting: str, source: str) -> Iterator[None]:
    """Names what is read in an error of ``from_pretrained``, which without a network does not say what was asked for.

    Args:
        setting: Where it was asked for (``model.llm``).
        source: The hub id, path or asset.

    Raises:
        OSError: With both.
    """
    try:
        yield
    except OSError as error:
        raise OSError(f"{setting}: '{source}' cannot be read: {error}") from error
