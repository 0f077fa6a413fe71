"""What causal importance costs, compared with one Taylor measurement and with a plain loop of a full pass per group.

    python -m benchmarks.ablation                 # SmolLM2-135M on CPU, one thread: one group of each layer
    python -m benchmarks.ablation --whole         # all matrices and heads, about half an hour

CPU time (process time, one thread) on the same examples: passages of Python's reference, every token supervised. The
unit is one forward pass with its losses. "Whole passes" is our own ablation without reuse of the lower blocks. The cost
of a group depends only on its layer, so one per layer is enough to estimate the total.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from textkeep.foundation.ranks import Ranks
from textkeep.importance import probe
from textkeep.importance.ablation import Ablation
from textkeep.importance.edits import zeroed
from textkeep.importance.evaluate import answer_losses
from textkeep.importance.losses import AnswerLoss
from textkeep.importance.options import ProbeOptions
from textkeep.importance.progress import silent
from textkeep.importance.site_table import Site
from textkeep.importance.sites import find_sites
from textkeep.importance.targets import find_targets, output_projections

from .miniature.manual_text import paragraphs

Batch = dict[str, Any]
Edit = list[tuple[Site, torch.Tensor]]  # sites and masks (O, I) of what is zeroed together
WAYS = ("lower blocks reused", "whole passes", "plain loop")


def passages(tokenizer: Any, rows: int, tokens: int) -> list[Batch]:
    """One batch of passages of the same length, all tokens supervised."""
    texts = (tokenizer(text, return_tensors="pt").input_ids[:, :tokens] for text in paragraphs())
    ids = torch.cat([text for text in texts if text.shape[1] == tokens][:rows])
    return [{"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids.clone()}]


def one_a_layer(groups: Sequence[Any], layers: int, whole: bool) -> list[Any]:
    """The groups that are measured: equally many of a kind in every layer, in order of depth."""
    return [*groups] if whole else [*groups][:: max(1, len(groups) // layers)]


def edits(model: nn.Module, ablate: str) -> list[Edit]:
    """What a plain loop zeroes: a layer's last matrices, each matrix, or the columns of each head."""
    table = find_sites(model)
    whole = {site.name: (site, torch.ones(site.shape, dtype=torch.bool)) for site in table.sites}
    if ablate == "layer":
        return [
            [whole[s.name] for s in table.sites if s.layer == layer and s.kind in ("o", "down")]
            for layer in range(table.layers)
        ]
    if ablate == "matrix":
        return [[whole[site.name]] for site in table.sites]
    found: list[Edit] = []
    for site, size in output_projections(table.sites, table.blocks):
        for start in range(0, site.shape[1], size):
            mask = torch.zeros(site.shape, dtype=torch.bool)
            mask[:, start : start + size] = True
            found.append([(site, mask)])
    return found


def plain_loop(model: nn.Module, data: list[Batch], groups: Sequence[Edit]) -> None:
    """What one would write without a library: zero the weights of a group, run the model, restore them."""
    answer_losses(model, data)
    for edit in groups:
        sites, masks = (dict(enumerate(part)) for part in zip(*edit, strict=True))
        with zeroed(sites, masks):  # type: ignore[arg-type]
            answer_losses(model, data)


def ablation(model: nn.Module, data: list[Batch], ablate: str, whole: bool, reuse: bool) -> None:
    """Our implementation on its own: the losses, then every group or one per layer."""
    table, options = find_sites(model), ProbeOptions(ablate=ablate, reuse_blocks=reuse)
    targets = one_a_layer(find_targets(table, ablate), table.layers, whole)
    run = Ablation("ablation", model, AnswerLoss(model, None), table, options, Ranks(False), silent, targets)
    answer_losses(model, data)
    for batch in data:
        run.keep(batch)
    run.run()


def seconds(work: Callable[[], Any]) -> float:
    """CPU seconds of a call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def measure(model: nn.Module, data: list[Batch], ablate: str, rounds: int, whole: bool) -> dict[str, Any]:
    """Costs of one granularity, in CPU seconds, and in forward passes and Taylor measurements of the same round."""
    every = edits(model, ablate)
    groups = one_a_layer(every, find_sites(model).layers, whole)
    works: dict[str, Callable[[], Any]] = {
        WAYS[0]: lambda: ablation(model, data, ablate, whole, reuse=True),
        WAYS[1]: lambda: ablation(model, data, ablate, whole, reuse=False),
        WAYS[2]: lambda: plain_loop(model, data, groups),
    }
    rows: list[dict[str, float]] = []
    for _ in range(rounds):
        row = {"forward": statistics.median(seconds(lambda: answer_losses(model, data)) for _ in range(3))}
        row["taylor"] = statistics.median(seconds(lambda: probe(model, data, "taylor")) for _ in range(3))
        rows.append(row | {name: seconds(work) for name, work in works.items()})
    found: dict[str, Any] = {"ablate": ablate, "groups": len(every), "measured": len(groups), "seconds": rows}
    for unit in ("forward", "taylor", WAYS[2]):
        found[f"in {unit}"] = {n: statistics.median(row[n] / row[unit] for row in rows) for n in ("taylor", *WAYS)}
    return found


def main(argv: list[str] | None = None) -> int:
    """Measures and prints; the exit code."""
    from textkeep.inference import load

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="asset:smollm2-135m-instruct")
    parser.add_argument("--ablate", nargs="+", choices=("layer", "matrix", "head"), default=["layer", "matrix", "head"])
    parser.add_argument("--rows", type=int, default=4, help="passages")
    parser.add_argument("--tokens", type=int, default=32, help="of each")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--whole", action="store_true", help="all groups, not one of each layer")
    parser.add_argument("--out", type=Path, help="JSON file")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    loaded = load(options.model, "cpu", "float32")
    data = passages(loaded.front_end.tokenizer, options.rows, options.tokens)
    found = []
    for ablate in options.ablate:
        found.append(measure(loaded.llm, data, ablate, options.rounds, options.whole))
        for key in ("in forward", "in taylor", f"in {WAYS[2]}"):
            shown = "  ".join(f"{name} {value:.2f}" for name, value in found[-1][key].items())
            print(f"{ablate} ({found[-1]['measured']} of {found[-1]['groups']}) {key}: {shown}", flush=True)
    if options.out:
        options.out.write_text(json.dumps({"torch": torch.__version__, "found": found}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
