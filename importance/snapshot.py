"""A measurement at one step: per-example scores, row and column sums, and views of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ..foundation.plain_tables import bars, plain_table
from ..foundation.run_names import layer_label
from .estimators import ESTIMATORS
from .masks import unpack
from .snapshot_data import Group, Matrix, SnapshotData
from .storage import load_snapshot, save_snapshot

GROUPS = ("layer", "kind", "matrix")


class Snapshot(SnapshotData):
    """Importance of a model's weights on a probe: views of what was measured, on disk and in memory."""

    def __str__(self) -> str:
        """Returns a short table: each estimator's total, largest share and layers as a curve."""
        rows = []
        for name in self.estimators:
            shares = self.shares(name)
            peak, values = max(shares, key=shares.__getitem__), list(shares.values())
            (curve,) = bars([share / (max(values) or 1.0) for share in values], 1, 1)
            rows.append([name, f"{self.total(name):.4g}", f"{peak} {100 * shares[peak]:.3g} %", curve])
        title = f"{self.heading}: {len(self.losses)} examples, loss {self.loss:.4g} nats a token"
        return plain_table(title, ["estimator", "total", "largest share", f"layers 0 to {self.layers - 1}"], rows)

    __repr__ = __str__

    @classmethod
    def load(cls, folder: str | Path) -> Snapshot:
        """Reads a snapshot folder; nothing is unpickled.

        Raises:
            FileNotFoundError: If there is no snapshot.
            ValueError: If its format is newer than this version.
        """
        return load_snapshot(Path(folder), cls)

    def save(self, folder: str | Path) -> Path:
        """Writes a snapshot folder under a temporary name and renames it; an existing one is replaced."""
        return save_snapshot(self, Path(folder))

    @property
    def step(self) -> int:
        """Optimiser step of the measurement; 0 of a model that has none."""
        return int(self.meta["step"] or 0)

    @property
    def heading(self) -> str:
        """Name of the probe, with the step where the model has one: a model from elsewhere has none."""
        return str(self.meta["name"]) if self.meta["step"] is None else f"{self.meta['name']}, step {self.step}"

    @property
    def loss(self) -> float:
        """Mean over the examples of the mean answer-token loss, nats."""
        return float(self.losses.mean())

    @property
    def ids(self) -> list[str]:
        """Ids of the examples, in the order of the rows of ``examples``."""
        return list(self.meta["probe"]["ids"])

    @property
    def estimators(self) -> tuple[str, ...]:
        """Names of the estimators measured."""
        return (*self.examples, *self.totals)

    def units(self, estimator: str) -> Sequence[Matrix | Group]:
        """Lists what an estimator scores: the matrices of the table, or its own groups."""
        return self.groups.get(estimator, self.table)

    def facts(self, estimator: str) -> Mapping[str, Any]:
        """Returns what a reader must know of an estimator, which need not be registered where a snapshot is read."""
        recorded = self.meta.get("specs", {})  # snapshots of earlier versions have none, and our estimators alone
        return recorded[estimator] if estimator in recorded else ESTIMATORS[estimator].facts()

    @property
    def layers(self) -> int:
        """Number of decoder blocks."""
        return int(self.meta["layers"])

    def scores(self, estimator: str) -> np.ndarray:
        """Returns the non-negative score (M,) of each unit: mean over the examples, of absolute values if signed.

        For an ablation, this is the positive part of the mean: the cost of removing the group. A group whose removal
        lowers the loss counts as 0; :meth:`effects` keeps the sign.

        Raises:
            ValueError: If the estimator was not measured.
        """
        if estimator in self.totals:
            return self.totals[estimator]
        return self.counted(estimator, self.per_example(estimator).mean(axis=0))

    def counted(self, estimator: str, means: np.ndarray) -> np.ndarray:
        """Returns the part of means (..., M) that counts in totals and shares: the positive one of an ablation."""
        return np.maximum(means, 0.0) if self.facts(estimator).get("ablated") else means

    def effects(self, estimator: str) -> np.ndarray:
        """Returns the mean over the examples (M,), signed for an ablation: below 0, the loss falls without the group.

        Raises:
            ValueError: If the estimator was not measured or has no per-example scores.
        """
        return self.per_example(estimator).mean(axis=0)

    def per_example(self, estimator: str) -> np.ndarray:
        """Returns the scores (N, M): absolute values if signed, except for an ablation, which keeps its sign.

        Raises:
            ValueError: If the estimator was not measured or has no per-example scores.
        """
        if estimator not in self.examples:
            known = ", ".join(self.examples)
            raise ValueError(f"importance: no per-example scores of {estimator!r} in this snapshot; it has {known}")
        values = self.examples[estimator]
        return np.abs(values) if self.facts(estimator)["signed"] else values

    def matrices(self, estimator: str) -> dict[str, float]:
        """Maps the names of parameters (or groups) to their scores."""
        return {unit.name: float(v) for unit, v in zip(self.units(estimator), self.scores(estimator), strict=True)}

    def membership(self, estimator: str, group: str = "layer") -> tuple[list[str], np.ndarray]:
        """Returns labels (G,) and a 0/1 matrix (M, G) saying which unit counts in which group.

        Only those in decoder blocks count. For a signed score or an ablation, only one of several equal ones counts.

        Raises:
            ValueError: For an unknown group.
        """
        if group not in GROUPS:
            raise ValueError(f"importance: group={group!r} is unknown; allowed: {', '.join(GROUPS)}")
        once = self.facts(estimator)["signed"] or estimator in self.groups
        name_of = {
            "layer": lambda m: layer_label(m.layer, self.layers),
            "kind": lambda m: m.kind,
            "matrix": lambda m: m.name,
        }[group]
        units = list(enumerate(self.units(estimator)))
        counted = [(i, m) for i, m in units if m.layer is not None and not (once and m.equal_to)]
        labels = list(dict.fromkeys(name_of(m) for _, m in counted))
        if group == "layer":
            labels = [layer_label(i, self.layers) for i in range(self.layers)]
        member = np.zeros((len(units), len(labels)))
        for i, unit in counted:
            member[i, labels.index(name_of(unit))] = 1.0
        return labels, member

    def shares(self, estimator: str, group: str = "layer") -> dict[str, float]:
        """Maps labels to shares of the decoder's total, which sum to 1; layers are labelled ``layer_07``."""
        labels, member = self.membership(estimator, group)
        sums = self.scores(estimator) @ member
        return dict(zip(labels, (sums / max(sums.sum(), np.finfo(float).tiny)).tolist(), strict=True))

    def total(self, estimator: str) -> float:
        """Sums over the decoder's matrices (one of each conserved pair if signed)."""
        _, member = self.membership(estimator)
        return float((self.scores(estimator) @ member).sum())

    def top(self, estimator: str, fraction: float | None = None) -> dict[str, Tensor]:
        """Maps parameter names to boolean masks (O, I) of the top fraction of single weights.

        Args:
            estimator: One whose masks were measured (``top_fraction`` and ``masks`` of the probe).
            fraction: The fraction expected; ``None`` takes what is there.

        Raises:
            ValueError: If there are no such masks.
        """
        measured = self.meta["options"].get("top_fraction")
        if estimator not in self.masks or (fraction is not None and fraction != measured):
            have = f"{', '.join(self.masks)} at {measured:g}" if self.masks else "none"
            raise ValueError(f"importance: no top-{fraction or 'k'} mask of {estimator!r}; this snapshot has {have}")
        return {m.name: unpack(bits, m.shape) for m, bits in zip(self.table, self.masks[estimator], strict=True)}

    def parameters(self, estimator: str) -> dict[str, Tensor]:
        """Maps parameter names to the mean score of every weight (O, I), if ``keep_maps`` asked for it.

        Raises:
            ValueError: If the map was not kept.
        """
        if estimator not in self.maps:
            raise ValueError(f"importance: {estimator!r} has no map; probe with keep_maps=({estimator!r},)")
        return {m.name: entries for m, entries in zip(self.table, self.maps[estimator], strict=True)}

    def lines(self, estimator: str) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Returns the row sums (O,) and column sums (I,) of each matrix.

        Raises:
            ValueError: If they were not kept.
        """
        if estimator in self.groups:
            raise ValueError(f"importance: {estimator!r} scores whole groups: it has no row and column sums")
        if estimator not in self.rows:
            raise ValueError(
                f"importance: no row and column sums of {estimator!r} in the snapshot of step {self.step}; measure "
                "with vectors (ImportanceTracker: vectors: true; probe: without --no-vectors)"
            )
        return self.rows[estimator], self.columns[estimator]

    def head_scores(self, estimator: str) -> dict[str, np.ndarray]:
        """Maps parameter names to the score of each attention head (rows of q, k, v; columns of o).

        Raises:
            ValueError: If row and column sums were not kept.
        """
        rows, columns = self.lines(estimator)
        if self.facts(estimator)["signed"]:
            return {m.name: h for m, h in zip(self.table, self.heads, strict=True) if h.size}
        sides: Mapping[bool, list[np.ndarray]] = {True: columns, False: rows}
        return {
            m.name: sides[m.kind == "o"][i].reshape(-1, m.head_dim).sum(axis=1)
            for i, m in enumerate(self.table)
            if m.head_dim
        }
