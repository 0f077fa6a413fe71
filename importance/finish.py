"""From sums on every rank to one snapshot."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..foundation.ranks import Ranks, is_sharded
from .ablation import Ablation, marked_groups
from .accumulator import Accumulator
from .activations import InputNorms
from .coverage import MOSTLY, by_reason
from .estimators import ESTIMATORS
from .finite import require_finite, require_not_negative
from .masks import Selection, scope_groups
from .options import ProbeOptions
from .record import Record
from .self_test import SelfTest
from .signed_lines import wide
from .site_table import SiteTable
from .snapshot import Snapshot
from .snapshot_data import Matrix
from .storage import versions

MASKING = "loss on labels != -100 only; padded positions excluded"
CHECK = "signed_taylor (self-test)"  # of the first batch, kept with the estimators' until the self-test is done
NORMALISATION = "mean over an example's answer tokens, then mean over examples"


def build_snapshot(
    model: nn.Module,
    table: SiteTable,
    accumulator: Accumulator,
    norms: InputNorms,
    record: Record,
    options: ProbeOptions,
    ranks: Ranks,
    test: SelfTest,
    ablation: Ablation | None,
    header: dict[str, Any],
) -> Snapshot:
    """Gathers all ranks and assembles the snapshot.

    Raises:
        NotFiniteError: If a loss or score is infinite or not a number.
        RuntimeError: If the self-test fails.
    """
    if ranks.rank == 0:
        tell_what_is_missing(type(model).__name__, table)
    examples, record = _gathered(accumulator, record, ranks)
    count, matrices = len(record.losses), [site.name for site in table.sites]
    require_finite(header["name"], record, examples, matrices)
    _sum_over_ranks(accumulator, norms, ranks)
    accumulator.complete(count)
    errors: dict[str, float] = {}
    pairs: list[tuple[int, int]] = []
    signed = examples.pop(CHECK, examples.get(accumulator.signed or ""))
    if signed is not None and options.self_test:
        errors, pairs = test.run(signed, options.autocast or accumulator.coarsest, ranks)
    heads = accumulator.signed_lines.heads
    twins = {second: table.sites[first].name for first, second in pairs}
    snapshot = Snapshot(
        table=[
            Matrix(
                s.name, s.shape, s.layer, s.kind, s.head_dim, "lm_head" if s.tied is not None else None, twins.get(i)
            )
            for i, s in enumerate(table.sites)
        ],
        examples=examples,
        totals={},
        rows={},
        columns={},
        heads=[_host(heads[i]) if i in heads else np.zeros(0) for i in range(len(table.sites))],
        losses=np.array(record.losses),
        tokens=np.array(record.tokens, dtype=np.int64),
        meta={},
    )
    _fill(snapshot, table, accumulator, norms, options, ranks, is_sharded(model))
    require_finite(header["name"], record, snapshot.totals, matrices)
    unsigned = {n: values for n, values in (examples | snapshot.totals).items() if not ESTIMATORS[n].signed}
    require_not_negative(unsigned, matrices)
    if ablation is not None:
        _add_effects(snapshot, ablation, record, ranks, header["name"])
    snapshot.meta = {**header, **snapshot.meta, **_meta(model, table, snapshot, options, record, ranks, errors)}
    return snapshot


def _add_effects(snapshot: Snapshot, ablation: Ablation, record: Record, ranks: Ranks, name: str) -> None:
    """Adds the effect of removing each group on the loss of each example."""
    estimator = ablation.estimator
    changes = np.concatenate(ranks.gather(ablation.changes))
    groups = marked_groups([target.group for target in ablation.targets], changes)
    require_finite(name, record, {estimator: changes}, [group.name for group in groups])
    snapshot.examples[estimator], snapshot.groups[estimator] = changes, groups
    snapshot.meta["ablation"] = {"resumes": ablation.resumes, "tokens": ablation.tokens}


def tell_what_is_missing(model: str, table: SiteTable) -> None:
    """Warns about matrices that are not scored: layer shares leave them out."""
    if reasons := by_reason(table.untapped):
        parts = [f"{reason}: {names[0]}{_and_more(len(names) - 1)}" for reason, names in reasons.items()]
        warnings.warn(
            f"importance: {table.coverage:.1%} of the decoder's parameters in {model} are scored. Not scored: "
            f"{'; '.join(parts)}{'' if table.coverage >= MOSTLY else '. Layer shares are of the scored ones alone'}",
            stacklevel=3,
        )


def _and_more(count: int) -> str:
    return f" and {count} more" if count else ""


def _gathered(accumulator: Accumulator, record: Record, ranks: Ranks) -> tuple[dict[str, np.ndarray], Record]:
    width = len(accumulator.sites)
    local = {
        name: _host(torch.cat(parts)) if parts else np.zeros((0, width)) for name, parts in accumulator.examples.items()
    }
    if accumulator.check is not None:
        local[CHECK] = _host(accumulator.check)
    everyone = ranks.gather((local, record, accumulator.coarsest))
    names = dict.fromkeys(name for part, _, _ in everyone for name in part)  # a rank without examples has no check
    examples = {n: np.concatenate([part[n] for part, _, _ in everyone if n in part]) for n in names}
    merged = type(record)(**{key: [v for _, r, _ in everyone for v in getattr(r, key)] for key in asdict(record)})
    accumulator.coarsest = max((kind for _, _, kind in everyone), key=lambda kind: torch.finfo(kind).eps)
    return examples, merged


def _sum_over_ranks(accumulator: Accumulator, norms: InputNorms, ranks: Ranks) -> None:
    if ranks.size == 1:
        return
    for index, tallies in enumerate(accumulator.tallies):
        for tally in tallies.values():
            for tensor in (tally.rows, tally.columns) if tally.map is None else (tally.map,):
                if tensor is not None:
                    ranks.sum(tensor)
        if accumulator.signed and (sums := accumulator.signed_lines.head_sums(index)) is not None:
            ranks.sum(sums)
    for squares in norms.squares:
        ranks.sum(squares)


def entry_scores(
    estimator: str, table: SiteTable, accumulator: Accumulator, norms: InputNorms, count: int
) -> Callable[[int], Tensor] | None:
    """Returns a function from ``i`` to the score of every weight of matrix ``i``; ``None`` if only sums were kept."""
    spec = ESTIMATORS[estimator]

    def mapped(index: int) -> Tensor:
        entries = accumulator.tallies[index][estimator].map
        assert entries is not None
        return entries

    def forward(index: int) -> Tensor:
        assert spec.forward is not None
        weight = wide(table.sites[index].weight())
        return spec.forward.entries(weight, norms.mean(index, count).to(weight) if spec.input_norms else None)

    if spec.forward is not None:
        return forward
    return mapped if accumulator.tallies[0][estimator].map is not None else None


def _fill(
    snapshot: Snapshot,
    table: SiteTable,
    accumulator: Accumulator,
    norms: InputNorms,
    options: ProbeOptions,
    ranks: Ranks,
    gathered: bool,
) -> None:
    """Adds row and column sums, totals of estimators without examples, masks and maps."""
    indices, count = range(len(table.sites)), len(snapshot.losses)
    for name in accumulator.estimators:
        entries = entry_scores(name, table, accumulator, norms, count)
        if not ESTIMATORS[name].per_example:
            assert entries is not None
            sums = [_sums(entries(i)) for i in indices]
            snapshot.totals[name] = np.array([float(rows.sum()) for rows, _ in sums])
            if options.vectors:
                snapshot.rows[name], snapshot.columns[name] = [r for r, _ in sums], [c for _, c in sums]
        elif options.vectors:
            tallies = [accumulator.tallies[i][name] for i in indices]
            snapshot.rows[name] = [_host(t.rows) for t in tallies if t.rows is not None]
            snapshot.columns[name] = [_host(t.columns) for t in tallies if t.columns is not None]
        if entries is not None and options.top_fraction:
            groups = scope_groups([s.layer for s in table.sites], options.top_scope)
            sizes = [s.shape[0] * s.shape[1] for s in table.sites]
            packed = Selection(entries, sizes, groups, ranks, gathered).masks(options.top_fraction)
            snapshot.masks[name] = [packed[i] for i in indices]
        if entries is not None and name in options.keep_maps:
            snapshot.maps[name] = [entries(i) for i in indices]


def _sums(entries: Tensor) -> tuple[np.ndarray, np.ndarray]:
    return _host(entries.sum(1, dtype=torch.float64)), _host(entries.sum(0, dtype=torch.float64))


def _host(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()


def _meta(
    model: nn.Module,
    table: SiteTable,
    snapshot: Snapshot,
    options: ProbeOptions,
    record: Record,
    ranks: Ranks,
    errors: dict[str, float],
) -> dict[str, Any]:
    fingerprint = hashlib.sha256("".join(sorted(record.keys)).encode()).hexdigest()
    return {
        "layers": table.layers,
        "model": {
            "class": type(model).__name__,
            "parameters": sum(p.numel() for p in model.parameters()),
            "dtype": str(table.sites[0].stored.dtype),
        },
        "estimators": list(snapshot.estimators),
        "specs": {name: ESTIMATORS[name].facts() for name in snapshot.estimators},
        "options": options.recorded(),
        "probe": {
            "fingerprint": fingerprint,
            "ids": record.ids,
            "examples": len(record.ids),
            "tokens": int(snapshot.tokens.sum()),
        },
        "loss": snapshot.loss,
        "coverage": table.coverage,
        "untapped": table.untapped,
        "conservation": errors,
        "heads": [h.size for h in snapshot.heads] if any(h.size for h in snapshot.heads) else [],
        "masking": MASKING,
        "normalisation": NORMALISATION,
        "world_size": ranks.size,
        "versions": versions(),
    }
