"""One measurement of a model's importance on a fixed set of examples, a *probe*."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from ..foundation.decoder import eval_mode
from ..foundation.ranks import Ranks, is_sharded
from .ablation import Ablation
from .accumulator import Accumulator
from .activations import InputNorms
from .estimators import DEFAULT_ESTIMATORS, ESTIMATORS, checked
from .finish import build_snapshot
from .losses import IGNORED, AnswerLoss, answer_spans, draw_seed
from .options import ProbeOptions
from .progress import Progress, silent
from .record import Record, identities
from .rehearsal import Use, rehearse, usable
from .self_test import SelfTest
from .site_table import SiteTable
from .sites import find_sites
from .snapshot import Snapshot
from .state import differentiable_embeddings, frozen, undisturbed, unwrap
from .taps import Taps


def probe(
    model: nn.Module,
    batches: Iterable[Mapping[str, Any]],
    estimators: Sequence[str] | str = DEFAULT_ESTIMATORS,
    *,
    step: int | None = 0,
    name: str = "probe",
    progress: Progress = silent,
    **options: Any,
) -> Snapshot:
    """Measures the importance of a causal LM's weights, and leaves the model as it was.

    An example's loss is the mean cross-entropy over its answer tokens; every estimator scores each example's own
    gradient before any reduction. Gradients, RNG, modes and ``requires_grad`` are restored, even after an error.

    Args:
        model: Takes ``input_ids`` or ``inputs_embeds``, and ``attention_mask``. DDP and compile wrappers are removed.
        batches: Mappings that also hold ``labels`` (B, T), -100 = not supervised, unshifted; optionally ``ids``.
            With a process group, each rank gives its own part, of any size.
        estimators: Names; see :data:`~textkeep.importance.estimators.ESTIMATORS`. All from one pass.
        step: Optimiser step, for the record; None of a model that has none.
        name: Of the probe, for the record.
        progress: Called before each group that ``ablation`` removes, equally often on every rank; what it raises ends
            the measurement.
        **options: Fields of :class:`ProbeOptions`.

    Returns:
        The snapshot, the same on all ranks.

    Raises:
        ValueError: For bad options, an example without answer tokens, or no example at all.
        NotFiniteError: If a loss or a score is infinite or not a number.
        RuntimeError: If a tap fired more often than its module was called, or the self-test failed.
    """
    names, settings = checked(estimators), ProbeOptions.of(options)  # in this order: the first imports estimators
    with torch.inference_mode(False):  # sums made in inference mode could not be added to in the backward pass
        run = Measurement(unwrap(model), name, names, settings, progress)
        started = time.perf_counter()
        run.measure(batches)
        header = {"step": step, "name": name, "seconds": time.perf_counter() - started}
        with torch.no_grad():
            return build_snapshot(
                run.model,
                run.table,
                run.accumulator,
                run.norms,
                run.record,
                settings,
                run.ranks,
                run.self_test,
                run.ablation,
                header,
            )


class Measurement:
    """One pass over the batches of a rank."""

    accumulator: Accumulator  # created, like the next four, once the first batch has shown what is scored
    norms: InputNorms
    self_test: SelfTest
    ablation: Ablation | None
    _taps: Taps

    def __init__(
        self, model: nn.Module, name: str, estimators: tuple[str, ...], options: ProbeOptions, progress: Progress
    ) -> None:
        self.model, self.name, self.options, self.estimators = model, name, options, estimators
        self._progress = progress
        self.ranks = Ranks(options.distributed)
        self.specs = {estimator: ESTIMATORS[estimator] for estimator in estimators}
        options.check(self.specs)
        self.table: SiteTable = find_sites(model, options.include)
        self.record = Record()
        self._loss = AnswerLoss(model, options.autocast)
        self._on_data = tuple(n for n, spec in self.specs.items() if spec.gradients and not spec.sampled)
        self._on_draws = tuple(n for n, spec in self.specs.items() if spec.sampled)
        self._device = next(model.parameters()).device

    def _prepare(self, uses: Sequence[Use]) -> None:
        """Creates everything that depends on what is scored and how a forward pass uses it."""
        options, specs = self.options, self.specs
        signed = any(spec.signed for spec in specs.values())
        ablated = next((name for name, spec in specs.items() if spec.ablated), None)
        tested = options.self_test and not signed
        mapped = self.estimators if options.top_fraction else options.keep_maps
        self.accumulator = Accumulator(
            self.table.sites,
            [name for name, spec in specs.items() if not spec.ablated],
            options.vectors,
            {name for name in mapped if name in specs and specs[name].block is not None},
            options.maps_on_cpu,
            self_test=tested,
            calls=[use.calls for use in uses],
        )
        self.norms = InputNorms(self.table.sites if any(spec.input_norms for spec in specs.values()) else [])
        self.self_test = SelfTest(self.model, self._loss, self.table)
        how = (options, self.ranks, self._progress)
        self.ablation = Ablation(ablated, self.model, self._loss, self.table, *how) if ablated else None
        entries = any(spec.finish is not None for spec in specs.values())
        self._taps = Taps(
            self.table.sites,
            self.accumulator,
            outputs=entries or (signed and options.vectors),
            inputs=signed or tested,
            keep_outputs=signed and options.vectors,
            uses=uses,
        )

    def measure(self, batches: Iterable[Mapping[str, Any]]) -> None:
        """Runs all batches; under FSDP, as many as the rank with the most."""
        gradients = bool(self._on_data or self._on_draws)
        last: Mapping[str, Any] | None = None
        with ExitStack() as stack:
            stack.enter_context(undisturbed(self.model))
            stack.enter_context(frozen(self.model))
            batches = self._rehearsed(batches)
            with ExitStack() as hooks:
                hooks.enter_context(differentiable_embeddings(self.model))
                if gradients:
                    hooks.enter_context(self._taps.attached())
                hooks.enter_context(self.norms.attached())
                for batch in self._in_step(batches):
                    if batch is not None:
                        last = self._to_device(batch)
                    assert last is not None
                    self._run(last, gradients, counted=batch is not None)  # otherwise it only keeps the ranks in step
            if self.ablation is not None:
                self.ablation.run()

    def _rehearsed(self, batches: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
        """Returns the batches, after checking on the first how the model uses its weights; all ranks must call it."""
        source = iter(batches)
        first = next(source, None)
        present = self.ranks.gather(first is not None)
        if is_sharded(self.model) and any(present) and not all(present):
            empty = ", ".join(str(rank) for rank, has in enumerate(present) if not has)
            raise ValueError(f"importance: with FSDP every rank needs a batch of the probe; none on rank {empty}")
        uses = None
        if first is not None:
            first = self._to_device(first)
            with eval_mode(self.model):
                uses = rehearse(self.table.sites, self._loss, first)
        known = next((found for found in self.ranks.gather(uses) if found is not None), None)
        if known is None:
            raise ValueError(f"importance: probe {self.name!r} has no examples")
        self.table, left = usable(self.table, known)
        self._prepare(left)
        self.self_test.batch = first
        return itertools.chain([] if first is None else [first], source)

    def _in_step(self, batches: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any] | None]:
        """Yields the batches; under FSDP, then ``None`` until the rank with the most has finished.

        The collectives of a forward pass need all ranks, so each announces before each pass whether it has more.
        """
        if not is_sharded(self.model):
            yield from batches
            return
        source = iter(batches)
        while True:
            batch = next(source, None)
            if not any(self.ranks.gather(batch is not None)):
                return
            yield batch

    def _run(self, batch: Mapping[str, Any], gradients: bool, counted: bool = True) -> None:
        labels: Tensor = batch["labels"]
        mask = batch.get("attention_mask")
        mask = torch.ones_like(labels) if mask is None else mask
        # on an accelerator, examples are processed together, and reading positions would force a synchronisation
        spans = answer_spans(mask, labels) if labels.device.type == "cpu" else None
        self.accumulator.begin(labels.shape[0], labels.shape[1], spans)
        ids, keys = identities(batch, labels, mask)
        with torch.set_grad_enabled(gradients):
            with self.norms.collecting(mask if counted else torch.zeros_like(mask)):
                logits, targets = self._loss.forward(batch)
            losses = self._loss.per_example(logits, targets)
            if gradients:
                self._backward(logits, targets, losses, ids, counted)
        if counted:
            self.record.losses += losses.detach().double().tolist()
            self.record.tokens += (targets != IGNORED).sum(dim=1).tolist()
            self.record.ids += ids
            self.record.keys += keys
            if self.ablation is not None:
                self.ablation.keep(batch)
        else:
            self.accumulator.drop_batch()

    def _backward(self, logits: Tensor, targets: Tensor, losses: Tensor, ids: list[str], counted: bool) -> None:
        draws = self.options.draws if self._on_draws else 0
        if self._on_data:
            self.accumulator.expect(self._on_data if counted else ())
            losses.sum().backward(retain_graph=draws > 0)
            self._after_backward()
        self.accumulator.expect(self._on_draws if counted else (), scale=1.0 / max(draws, 1))
        for draw in range(draws):
            seeds = [draw_seed(self.options.seed, draw, key) for key in ids]
            sampled = self._loss.sampled_targets(logits, targets, seeds)
            self._loss.per_example(logits, sampled).sum().backward(retain_graph=draw + 1 < draws)
            self._after_backward()

    def _after_backward(self) -> None:
        self._taps.check()
        self.accumulator.flush()
        if self.self_test.first is None:
            signed = self.accumulator.first_signed()
            self.self_test.first = None if signed is None else signed.cpu().numpy()

    def _to_device(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        if batch.get("labels") is None:
            raise ValueError(f"importance: a batch of the probe has no labels; it has {', '.join(batch)}")
        if batch.get("inputs_embeds") is not None and "embeddings" in self.options.include:
            raise ValueError("importance: include=embeddings needs input_ids: inputs_embeds bypass the embedding")
        return {k: v.to(self._device) if isinstance(v, Tensor) else v for k, v in batch.items()}
