"""``probe``: one measurement of a model's importance on a fixed set of examples."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor, nn

from .accumulator import Accumulator
from .activations import InputNorms
from .collectives import Ranks, is_sharded
from .estimators import DEFAULT_ESTIMATORS, ESTIMATORS, checked
from .finish import build_snapshot
from .losses import IGNORED, AnswerLoss
from .masks import SCOPES
from .sites import SiteTable, find_sites
from .snapshot import Snapshot
from .state import differentiable_embeddings, frozen, undisturbed, unwrap
from .taps import Taps


@dataclass(frozen=True)
class ProbeOptions:
    """Settings of a measurement; all but the last three change the numbers and must agree in a comparison.

    Attributes:
        include: ``"embeddings"`` and / or ``"norms"`` beside the matrices of the decoder blocks.
        vectors: Keep row and column sums.
        draws: Label draws of ``fisher_sampled``.
        seed: Of those draws; each example has its own stream.
        autocast: Compute type of the forward pass, ``None`` for the weights' own.
        top_fraction: Keep a mask of the top fraction of single weights.
        top_scope: What competes: ``matrix``, ``layer`` or ``global``.
        keep_maps: Estimators whose score of every single weight is kept (as much memory as the weights in float32).
        maps_on_cpu: Keep those on the CPU.
        self_test: Check the conservation identities: on all examples with ``signed_taylor``, else on the first batch,
            where that costs about one per cent of the pass. Without a backward pass there is nothing to check.
        distributed: Share the examples with the other ranks of the process group, if there is one.
    """

    include: tuple[str, ...] = ()
    vectors: bool = True
    draws: int = 4
    seed: int = 0
    autocast: torch.dtype | None = None
    top_fraction: float | None = None
    top_scope: str = "matrix"
    keep_maps: tuple[str, ...] = ()
    maps_on_cpu: bool = False
    self_test: bool = True
    distributed: bool = True

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise ValueError(f"importance: draws={self.draws} must be at least 1")
        if self.top_fraction is not None and not 0 < self.top_fraction <= 1:
            raise ValueError(f"importance: top_fraction={self.top_fraction} must lie in (0, 1]")
        if self.top_scope not in SCOPES:
            raise ValueError(f"importance: top_scope={self.top_scope!r} is unknown; allowed: {', '.join(SCOPES)}")
        checked([*self.keep_maps, "magnitude"])

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> ProbeOptions:
        """Options from keyword arguments; lists become tuples.

        Raises:
            ValueError: For an unknown option or a value that is not allowed.
        """
        names = [f.name for f in fields(cls)]
        unknown = sorted(set(given) - set(names))
        if unknown:
            raise ValueError(f"importance: unknown option {', '.join(unknown)}; allowed: {', '.join(names)}")
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list | set) else v for k, v in given.items()}
        return cls(**values)


@dataclass
class Record:
    """What is kept of the examples of this rank beside their scores."""

    losses: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)


def probe(
    model: nn.Module,
    batches: Iterable[Mapping[str, Any]],
    estimators: Sequence[str] | str = DEFAULT_ESTIMATORS,
    *,
    step: int = 0,
    name: str = "probe",
    **options: Any,
) -> Snapshot:
    """Measures the importance of a causal LM's weights, and leaves the model as it was.

    An example's loss is the mean cross-entropy over its answer tokens; every estimator scores each example's own
    gradient before any reduction. Gradients, RNG, modes and ``requires_grad`` are put back, also after an error.

    Args:
        model: Takes ``input_ids`` or ``inputs_embeds``, and ``attention_mask``. DDP and compile wrappers are taken off.
        batches: Mappings that also hold ``labels`` (B, T), -100 = not supervised, unshifted; optionally ``ids``.
            With a process group, each rank gives its own part, of any size.
        estimators: Names; see :data:`~textkeep.importance.estimators.ESTIMATORS`. All from one pass.
        step: Optimiser step, for the record.
        name: Of the probe, for the record.
        **options: See :class:`ProbeOptions`.

    Returns:
        The snapshot, the same on all ranks.

    Raises:
        ValueError: For bad options, an example without answer tokens, or no example at all.
        RuntimeError: If a tap did not fire once, or the self-test failed.
    """
    settings = ProbeOptions.of(options)
    with torch.inference_mode(False):  # sums made in inference mode could not be added to in the backward pass
        run = _Measurement(unwrap(model), checked(estimators), settings)
        started = time.perf_counter()
        run.measure(batches)
        header = {"step": step, "name": name, "seconds": time.perf_counter() - started}
        with torch.no_grad():
            return build_snapshot(
                run.model, run.table, run.accumulator, run.norms, run.record, settings, run.ranks, header
            )


class _Measurement:
    """One pass over the batches of a rank."""

    def __init__(self, model: nn.Module, estimators: tuple[str, ...], options: ProbeOptions) -> None:
        self.model, self.options, self.estimators = model, options, estimators
        self.ranks = Ranks(options.distributed)
        self.table: SiteTable = find_sites(model, options.include)
        if options.include and "wanda" in estimators:
            raise ValueError("importance: wanda scores the inputs of Linear layers; leave include empty")
        maps = {*options.keep_maps, *(estimators if options.top_fraction else ())}
        maps = {n for n in maps if ESTIMATORS[n].maps and ESTIMATORS[n].per_example}
        signed = "signed_taylor" in estimators
        tested = options.self_test and not signed
        self.accumulator = Accumulator(
            self.table.sites, estimators, options.vectors, maps, options.maps_on_cpu, self_test=tested
        )
        self.norms = InputNorms(self.table.sites if "wanda" in estimators else [])
        self.record = Record()
        self._loss = AnswerLoss(model, options.autocast)
        self._data_pass = tuple(n for n in estimators if ESTIMATORS[n].backward)
        self._device = next(model.parameters()).device
        outputs = any(ESTIMATORS[n].block is not None or n == "taylor_batch" for n in estimators)
        self._taps = Taps(
            self.table.sites,
            self.accumulator,
            outputs=outputs or (signed and options.vectors),
            inputs=signed or tested,
            keep_outputs=signed and options.vectors,
        )

    def measure(self, batches: Iterable[Mapping[str, Any]]) -> None:
        """Runs all batches; under FSDP, as many as the rank with the most."""
        gradients = bool(self._data_pass) or "fisher_sampled" in self.estimators
        last: Mapping[str, Any] | None = None
        with ExitStack() as stack:
            stack.enter_context(undisturbed(self.model))
            stack.enter_context(frozen(self.model))
            stack.enter_context(differentiable_embeddings(self.model))
            if gradients:
                stack.enter_context(self._taps.attached())
            stack.enter_context(self.norms.attached())
            for batch in self._in_step(batches):
                if batch is not None:
                    last = self._to_device(batch)
                assert last is not None
                self._run(last, gradients, counted=batch is not None)  # else it only keeps the ranks in step

    def _in_step(self, batches: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any] | None]:
        """The batches; under FSDP followed by ``None`` until the rank with the most is through.

        The collectives of a forward pass need all ranks, so each says before each pass whether it has more.
        """
        if not is_sharded(self.model):
            yield from batches
            return
        source, first = iter(batches), True
        while True:
            batch = next(source, None)
            more = self.ranks.gather(batch is not None)
            if first and any(more) and not all(more):
                empty = ", ".join(str(rank) for rank, has in enumerate(more) if not has)
                raise ValueError(f"importance: with FSDP every rank needs a batch of the probe; none on rank {empty}")
            if not any(more):
                return
            yield batch
            first = False

    def _run(self, batch: Mapping[str, Any], gradients: bool, counted: bool = True) -> None:
        labels: Tensor = batch["labels"]
        if batch.get("inputs_embeds") is not None and "embeddings" in self.options.include:
            raise ValueError("importance: include=embeddings needs input_ids: inputs_embeds bypass the embedding")
        mask = batch.get("attention_mask")
        mask = torch.ones_like(labels) if mask is None else mask
        # on an accelerator examples go through together, and asking for positions would wait for it
        spans = _spans(mask, labels) if labels.device.type == "cpu" else None
        self.accumulator.begin(labels.shape[0], labels.shape[1], spans)
        ids, keys = _identities(batch, labels, mask)
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
        else:
            self.accumulator.drop_batch()

    def _backward(self, logits: Tensor, targets: Tensor, losses: Tensor, ids: list[str], counted: bool) -> None:
        draws = self.options.draws if "fisher_sampled" in self.estimators else 0
        if self._data_pass:
            self.accumulator.expect(self._data_pass if counted else ())
            losses.sum().backward(retain_graph=draws > 0)
            self._taps.check()
        self.accumulator.expect(("fisher_sampled",) if counted else (), scale=1.0 / max(draws, 1))
        for draw in range(draws):
            seeds = [_seed(self.options.seed, draw, key) for key in ids]
            sampled = self._loss.sampled_targets(logits, targets, seeds)
            self._loss.per_example(logits, sampled).sum().backward(retain_graph=draw + 1 < draws)
            self._taps.check()

    def _to_device(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        if batch.get("labels") is None:
            raise ValueError(f"importance: a batch of the probe has no labels; it has {', '.join(batch)}")
        return {k: v.to(self._device) if isinstance(v, Tensor) else v for k, v in batch.items()}


def _spans(mask: Tensor, labels: Tensor) -> list[tuple[int, int]]:
    """First and last + 1 position of each example that can have a gradient: content, before the last answer token."""
    spans = []
    for content, supervised in zip(mask.bool(), labels != IGNORED, strict=True):
        places, answers = content.nonzero().flatten(), supervised.nonzero().flatten()
        spans.append((int(places[0]), int(answers[-1])) if len(places) and len(answers) else (0, len(content)))
    return spans


def _identities(batch: Mapping[str, Any], labels: Tensor, mask: Tensor) -> tuple[list[str], list[str]]:
    """Ids of the examples, and hashes of id, answer tokens and (where given) input ids: the probe's fingerprint."""
    inputs = batch.get("input_ids")
    given = batch.get("ids")
    ids, keys = [], []
    for row in range(len(labels)):
        digest = hashlib.sha256(str(labels[row][labels[row] != IGNORED].tolist()).encode())
        if inputs is not None:
            digest.update(str(inputs[row][mask[row].bool()].tolist()).encode())
        label = str(given[row]) if given is not None else digest.hexdigest()[:16]
        digest.update(label.encode())
        ids.append(label)
        keys.append(digest.hexdigest())
    return ids, keys


def _seed(seed: int, draw: int, key: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{draw}/{key}".encode()).digest()[:8], "big") >> 1
