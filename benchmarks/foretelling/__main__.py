"""Removes layers, matrices and heads of a model one at a time, and checks which score predicted the effect.

    python -m benchmarks.foretelling measure asset:smollm2-135m-instruct --text plain --out foretelling/base-plain.jsonl
    python -m benchmarks.foretelling measure outputs/RUN --text plain --out foretelling/lost-plain.jsonl
    python -m benchmarks.foretelling table foretelling/*.jsonl        # the tables of docs/results/importance.md

It runs on one thread; a row per piece is written as it is measured, and the same command continues where it was
stopped. The first half of the examples is scored; a score should predict the change of the loss on the second half.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import types
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if importlib.util.find_spec("textkeep") is None:  # a checkout that is not installed
    package = types.ModuleType("textkeep")
    package.__path__ = [str(ROOT)]
    sys.modules["textkeep"] = package

from benchmarks.foretelling.measuring import measure  # noqa: E402
from benchmarks.foretelling.table import table  # noqa: E402
from benchmarks.foretelling.texts import TEXTS  # noqa: E402


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(prog="benchmarks.foretelling", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    measuring = verbs.add_parser("measure")
    measuring.add_argument("model")
    measuring.add_argument("--text", choices=TEXTS, default="plain")
    measuring.add_argument("--examples", type=int, default=40, help="half of them are scored (default: 40)")
    measuring.add_argument("--heads", type=int, default=2, help="heads of each layer (default: 2)")
    measuring.add_argument("--out", type=Path, required=True)
    tables = verbs.add_parser("table")
    tables.add_argument("files", type=Path, nargs="+")
    options = parser.parse_args()
    if options.verb == "table":
        print(table(options.files))
    else:
        measure(options.model, options.text, options.examples, options.heads, options.out)


if __name__ == "__main__":
    main()
