"""Turns what the taps report into per-example scores, row and column sums, and maps."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor

from .estimators import ESTIMATORS
from .factors import DenseFactors, EmbeddingFactors, Factors, VectorFactors, together
from .kernels import (
    Tally,
    Workspace,
    gram_is_cheaper,
    row_gradients,
    score_entries,
    score_norms,
    score_signed_entries,
    vector_gradients,
)
from .signed_lines import SignedLines, wide
from .site_table import Site


class Accumulator:
    """A :class:`~textkeep.importance.taps.Sink`: what the taps receive becomes scores.

    Args:
        sites: What is scored.
        estimators: Names.
        vectors: Keep row and column sums.
        maps: Estimators for which every single weight's score is kept.
        maps_on_cpu: Keep those on the CPU.
        self_test: Keep the signed scores of the first batch even if they were not requested.
        calls: How often a forward pass uses each site; once by default. The gradients of several uses are added up
            before anything is scored, so :meth:`flush` must follow each backward pass.
    """

    def __init__(
        self,
        sites: Sequence[Site],
        estimators: Sequence[str],
        vectors: bool = True,
        maps: Collection[str] = (),
        maps_on_cpu: bool = False,
        self_test: bool = False,
        calls: Sequence[int] | None = None,
    ) -> None:
        self.sites = sites
        self.estimators = tuple(estimators)
        self.signed = next((n for n in self.estimators if ESTIMATORS[n].signed), None)
        self.examples: dict[str, list[Tensor]] = {n: [] for n in self.estimators if ESTIMATORS[n].per_example}
        self.check: Tensor | None = None  # signed scores (B, M) of the first batch
        self._testing = self_test
        self.coarsest = torch.float64  # type seen in the passes, which FSDP's mixed precision makes another than stored
        self._vectors = vectors
        self._workspace = Workspace()
        kept = {n: n in maps or ESTIMATORS[n].batch is not None for n in self.estimators if ESTIMATORS[n].gradients}
        self.tallies: list[dict[str, Tally]] = [
            {n: _new_tally(site, n, vectors, keep_map, maps_on_cpu) for n, keep_map in kept.items()} for site in sites
        ]
        self._several = {index for index, count in enumerate(calls or ()) if count > 1}
        self._uses: dict[int, list[DenseFactors | VectorFactors]] = {}
        signed_tallies = [tallies[self.signed] for tallies in self.tallies] if self.signed else []
        self.signed_lines = SignedLines(sites, signed_tallies, self._several)
        self._tied: dict[int, DenseFactors] = {}
        self._active: tuple[str, ...] = ()
        self._scale = 1.0
        self._rows = 0
        self._length = 0
        self._spans: list[tuple[int, int]] | None = None

    def begin(self, batch: int, length: int, spans: list[tuple[int, int]] | None = None) -> None:
        """Opens a batch of ``batch`` examples of ``length`` positions, with gradients in ``spans`` only."""
        self._rows, self._length, self._spans = batch, length, spans
        for parts in self.examples.values():
            parts.append(self._zeros(batch))
        self._testing = self._testing and self.check is None
        if self._testing:
            self.check = self._zeros(batch)

    def expect(self, estimators: Sequence[str], scale: float = 1.0) -> None:
        """Sets which estimators the next backward pass feeds, and with what factor."""
        self._active, self._scale = tuple(n for n in estimators if n in self.estimators), scale

    def drop_batch(self) -> None:
        """Forgets the scores of the last batch (one that only kept the ranks in step)."""
        for parts in self.examples.values():
            parts.pop()

    def complete(self, count: int) -> None:
        """Turns all sums except the per-example scores into means over ``count`` examples; every rank must call it."""
        for site, tallies in zip(self.sites, self.tallies, strict=True):
            mapped = any(tally.map is not None for tally in tallies.values())
            weight = site.weight() if mapped else None
            for name, tally in tallies.items():
                tally.complete(weight, ESTIMATORS[name].finish, count)
        self.signed_lines.complete(count)

    def output_gradient(self, index: int, a: Tensor, y: Tensor | None, b: Tensor) -> None:
        """Scores a site by the gradient ``b`` at its output, or keeps its factors until all uses have been seen."""
        site = self.sites[index]
        if site.parameter is not None:
            vectors = VectorFactors(vector_gradients(site.module, site.parameter, a, b, self._rows))
            self._use(index, vectors)
            return
        a, b = self._by_example(site, a), self._by_example(site, b)
        if y is not None and site.tied is None and self.signed in self._active:
            self.signed_lines.add_output(index, self._by_example(site, y), b)
        factors = DenseFactors(a.to(b.dtype), b, self._spans if self._inside_spans(b) else None)
        if site.tied is not None:
            self._tied[index] = factors
        else:
            self._use(index, factors)

    def input_gradient(self, index: int, a: Tensor, dx: Tensor) -> None:
        """Adds to the signed scores: ``<W, G_i> = sum_t a_t . dx_t`` needs no weight gradient."""
        signed = self.signed if self.signed in self._active else None
        if not (signed or self._testing):
            return
        site = self.sites[index]
        if torch.finfo(dx.dtype).eps > torch.finfo(self.coarsest).eps:
            self.coarsest = dx.dtype
        if self._testing and self.check is not None:
            left, right = (wide(tensor).reshape(self._rows, 1, -1) for tensor in (a, dx))
            self.check[:, index] += torch.bmm(left, right.transpose(1, 2)).flatten()
        if not signed:
            return
        columns = self._by_example(site, wide(a) * wide(dx)).sum(1)
        self.examples[signed][-1][:, index] += columns.sum(1, dtype=torch.float64)
        self.signed_lines.add(index, "columns", columns)

    def lookup_gradient(self, index: int, ids: Tensor, e: Tensor) -> None:
        """Scores an embedding by its lookups, together with the head that shares its weight."""
        site = self.sites[index]
        table: Any = site.tied if site.tied is not None else site.module
        if ids.shape[0] != self._rows:
            raise RuntimeError(f"importance: {site.name} was looked up with ids of shape {tuple(ids.shape)}")
        e = row_gradients(table, ids, e)
        if table.padding_idx is not None:
            e = e * (ids != table.padding_idx).unsqueeze(-1)
        self._score(index, EmbeddingFactors(ids, e, site.shape[0], self._tied.pop(index, None)))

    def first_signed(self) -> Tensor | None:
        """Returns the signed scores (M,) of the first example of the open batch, if there are any."""
        if self.check is not None:
            return self.check[0]
        return self.examples[self.signed][-1][0] if self.signed else None

    @torch.no_grad()
    def flush(self) -> None:
        """Scores the sites with several uses, once the gradients of all uses are available."""
        for index, parts in self._uses.items():
            self._score(index, together(parts), cheap_signed=self.sites[index].parameter is None)
        self._uses = {}
        self.signed_lines.flush()

    def _use(self, index: int, factors: DenseFactors | VectorFactors) -> None:
        if index in self._several:
            self._uses.setdefault(index, []).append(factors)
        else:
            self._score(index, factors, cheap_signed=self.sites[index].parameter is None)

    def _score(self, index: int, factors: Factors, cheap_signed: bool = False) -> None:
        site, tallies = self.sites[index], self.tallies[index]
        if self.signed in self._active and not cheap_signed:
            values = score_signed_entries(factors, site.weight(), tallies[self.signed], self._workspace)
            self.examples[self.signed][-1][:, index] += values
        for name in self._active:
            if ESTIMATORS[name].batch is not None and (running := tallies[name].map) is not None:
                factors.total(running)
        blocks = {n: block for n in self._active if (block := ESTIMATORS[n].block) is not None}
        if not blocks:
            return
        if self._by_norms(index, factors, [*blocks]):
            scores = {n: score_norms(factors, tallies[n], self._scale) for n in blocks}
        else:
            scores = score_entries(factors, site.weight(), blocks, tallies, self._workspace, self._scale)
        for name, values in scores.items():
            self.examples[name][-1][:, index] += values.to(self.examples[name][-1].device)

    def _by_norms(self, index: int, factors: Factors, names: Sequence[str]) -> bool:
        """Returns whether the only requested score is cheaper without the entries of the gradients."""
        alone = len(names) == 1 and ESTIMATORS[names[0]].squared_norm and self.tallies[index][names[0]].map is None
        return alone and gram_is_cheaper(factors, self.sites[index].shape, self._vectors)

    def _zeros(self, batch: int) -> Tensor:
        return torch.zeros(batch, len(self.sites), dtype=torch.float64, device=self.sites[0].stored.device)

    def _inside_spans(self, b: Tensor) -> bool:
        """Returns whether gradients are confined to the spans, which fails if positions attend to later ones."""
        if self._spans is None or b.shape[1] != self._length:
            return False
        return not any(b[i, :start].any() or b[i, stop:].any() for i, (start, stop) in enumerate(self._spans))

    def _by_example(self, site: Site, tensor: Tensor) -> Tensor:
        """Reshapes what a module saw to (B, T, features): it may have merged or split the middle dimensions."""
        if tensor.dim() == 2 and tensor.shape[0] % self._rows == 0:
            return tensor.unflatten(0, (self._rows, -1))
        if tensor.dim() < 3 or tensor.shape[0] != self._rows:
            shape = tuple(tensor.shape)
            raise RuntimeError(
                f"importance: {site.name} saw a tensor {shape}, not one row for each of {self._rows} examples"
            )
        return tensor.flatten(1, -2)


def _new_tally(site: Site, name: str, vectors: bool, keep_map: bool, on_cpu: bool) -> Tally:
    weight = site.stored
    height, width = site.shape
    vectors = vectors and ESTIMATORS[name].per_example
    rows = torch.zeros(height, dtype=torch.float64, device=weight.device) if vectors else None
    columns = torch.zeros(width, dtype=torch.float64, device=weight.device) if vectors else None
    device = torch.device("cpu") if on_cpu else weight.device
    dtype = torch.promote_types(weight.dtype, torch.float32)
    entries = torch.zeros(height, width, dtype=dtype, device=device) if keep_map else None
    return Tally(rows, columns, entries)
