"""Options that several verbs share; a wrong value is reported before anything is loaded."""

from __future__ import annotations

import argparse
import math

from ..foundation.outputs import OVERWRITE

MODEL_HELP = "hub id, folder, asset:NAME, run directory, .ckpt file or export"
PRECISIONS = ("float32", "bfloat16")


def positive(text: str) -> int:
    """Reads a whole number of at least 1."""
    return _whole(text, 1)


def not_negative(text: str) -> int:
    """Reads a whole number of at least 0."""
    return _whole(text, 0)


def finite(text: str) -> float:
    """Reads a finite number, since ``nan`` would spread to every weight."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"must be a number, got {text!r}")
    return value


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options about the machine, for a verb that loads a model."""
    parser.add_argument("--device", help="cpu, cuda, ... (default: a GPU if there is one)")
    parser.add_argument("--dtype", choices=PRECISIONS, default="float32", help="type of the weights (default: float32)")


def _whole(text: str, least: int) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least {least}, got {text!r}")
    return int(text)


def add_overwrite_option(parser: argparse.ArgumentParser) -> None:
    """Adds ``--overwrite``, for a verb that writes a file or folder."""
    parser.add_argument(OVERWRITE, action="store_true", help="replace existing results")
