"""Measures a model on a text: the change of each example's loss without each piece, and the gradient sums."""

from __future__ import annotations

import json
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from textkeep.importance.resume import ResumedLosses
from textkeep.importance.sites import find_sites
from textkeep.inference import load

from .gradients import block_by_block, on_the_way, per_example
from .pieces import Piece, pieces, removed
from .texts import TEXTS, rows

SOME = 30
FEW = 8  # examples for the path that scales one layer after another
NODES = 3  # for the path that scales all layers at once


def measure(source: str, text: str, count: int, heads: int, out: Path) -> None:
    """Writes a row for the set-up, one for the gradient sums of each kind, and one for each piece.

    Args:
        source: What ``textkeep.inference.load`` takes.
        text: One of ``texts.TEXTS``.
        count: Examples; the first half is scored.
        heads: Heads of each layer.
        out: The file; existing rows are not measured again.
    """
    torch.set_num_threads(1)
    done = {row["name"] for row in read(out)}
    out.parent.mkdir(parents=True, exist_ok=True)
    model = load(source, "cpu")
    batches = TEXTS[text](model, count)
    llm = model.llm.eval()
    sites = [site for site in find_sites(llm).sites if site.layer is not None and site.kind in KINDS]
    half = rows(batches, count // 2)
    losses = ResumedLosses(llm, batches, torch.bfloat16)  # twice as fast here; gradients stay in float32
    head = {
        "name": "setup", "model": source, "text": text, "examples": len(losses.losses), "scored": len(half),
        "losses": losses.losses.tolist(), "tokens": int(sum((b["labels"][:, 1:] != -100).sum() for b in batches)),
        "machine": platform.machine(), "torch": torch.__version__, "transformers": transformers.__version__, "seed": 0,
    }  # fmt: skip
    write(out, done, "setup", lambda: head)
    order = pieces(sites, heads)
    for piece in order[:SOME]:  # a little of everything first gives the best early overview
        write(out, done, piece.name, lambda piece=piece: effect(piece, sites, losses))
    for name, values in {
        "data": lambda: per_example(llm, sites, half),
        "drawn": lambda: per_example(llm, sites, half, sampled=True),
        "path": lambda: on_the_way(llm, sites, half, NODES),
    }.items():
        write(out, done, name, lambda values=values: gradients(values, sites))
    for piece in order:
        write(out, done, piece.name, lambda piece=piece: effect(piece, sites, losses))
    write(out, done, "blocks", lambda: gradients(lambda: block_by_block(llm, sites, half[:FEW], 0.5), sites))


KINDS = ("q", "k", "v", "o", "gate", "up", "down")


def effect(piece: Piece, sites: list[Any], losses: ResumedLosses) -> dict[str, Any]:
    """Measures the change of the loss of each example without a piece."""
    index = {(site.layer, site.kind): site for site in sites}
    with removed(piece, index):
        changed = losses.after_change(piece.layer) - losses.losses
    return {"name": piece.name, "level": piece.level, "layer": piece.layer, "changes": changed.tolist()}


def gradients(values: Any, sites: list[Any]) -> dict[str, Any]:
    """Makes a row of gradient sums."""
    found = {name: np.asarray(sums).tolist() for name, sums in values().items()}
    return {"matrices": [[site.layer, site.kind] for site in sites], "sums": found}


def write(out: Path, done: set[str], name: str, make: Any) -> None:
    """Adds a row unless it is there."""
    if name in done:
        return
    start, cpu = time.time(), time.process_time()
    row = {"name": name, **make()}
    row |= {"seconds": round(time.time() - start, 2), "cpu_seconds": round(time.process_time() - cpu, 2)}
    with out.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    done.add(name)
    print(f"{name}: {row['cpu_seconds']} s of the processor, {row['seconds']} s", flush=True)


def read(path: Path) -> list[dict[str, Any]]:
    """Reads the rows; a truncated one is left out."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found
