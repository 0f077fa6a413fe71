"""A fit without data: its moments of highest memory, one after another, and the operations of a step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import Callback
from torch import Tensor, nn

from ..callbacks import Divergence, ImportanceTracker
from ..datamodules import SpeechTextData
from ..datamodules.batches.batch import Batch
from ..foundation.errors import UserError
from ..foundation.sharding import gathered, own_part
from ..importance.estimators import ESTIMATORS
from ..importance.measurement import Measurement
from ..importance.options import ProbeOptions
from ..importance.progress import silent
from ..lightning_modules import SpeechLLM
from ..lightning_modules.llm.pretrained import shapes_only
from .meter import ACTIVATIONS, OPTIMIZER, SCORES, TEACHER, WEIGHTS, Meter
from .moments import Moment, Rehearsed, Sizes
from .pretended_ranks import divide, mesh_of
from .question import Batches, Question
from .shadow import Shadow
from .stepping import Stepping, TrainerSettings
from .teachers import stand_beside

BUCKETS = "buckets of DDP"
CACHE = "keys and values of answers"


class Rehearsal:
    """Builds a model of shapes and takes it through a fit.

    Args:
        model: As its config describes it; nothing is loaded yet.
        data: As its config describes it; no source is read.
        callbacks: Of the fit.
        settings: Of the Trainer.
        question: What the rows are.
        ranks: Processes of the fit.
    """

    def __init__(
        self,
        model: SpeechLLM,
        data: SpeechTextData,
        callbacks: Sequence[Callback],
        settings: TrainerSettings,
        question: Question,
        ranks: int,
    ) -> None:
        self.model, self.data, self.callbacks, self.settings = model, data, callbacks, settings
        self.ranks = ranks
        self.meter = Meter()
        self._shadow = Shadow(self.meter)
        with self._cast(), settings.weights(), self.meter.counting(WEIGHTS):
            model.configure_model()
            model.to(settings.dtype)  # as Lightning does for bf16-true
        front_end: Any = model.front_end
        data.connect(front_end)
        self.batches = Batches(data, question)
        mesh = None if settings.replicas is None else mesh_of(ranks, settings.replicas)
        with self._cast():
            if mesh is not None:
                with self.meter.counting(WEIGHTS):
                    divide(model, mesh, settings.precision, settings.reshard_after_forward)
            self.stepping = Stepping(model, settings)
            stand_beside(model, self.meter)
        self.meter.watch_gradients(self.stepping.trained)
        self._gradients = 0

    def run(self) -> Rehearsed:
        """Goes through all moments.

        Raises:
            UserError: If a step does what cannot be followed without data.
        """
        found = self.steps()
        for name, work in (("evaluation", self._evaluation), ("importance", self._importance)):
            try:
                found.moments += work()
            except RuntimeError as error:
                found.left_out.append(f"{name} cannot be followed without data: {error}")
        return found

    def steps(self) -> Rehearsed:
        """Goes through optimizer steps alone: a batch of each kind, and the optimizer's part.

        Raises:
            UserError: As :meth:`run`.
        """
        kinds = self.batches.kinds()
        try:
            self._first_step(self.batches.training(kinds[0]))
            moments = [self.training(kind) for kind in kinds]
            return Rehearsed([*moments, self._optimizer_step()], self._sizes())
        except RuntimeError as error:
            raise UserError(
                f"plan: a step of this config cannot be followed without data ({error}); allowed: --run"
            ) from error

    def training(self, kind: str, budget: int | None = None) -> Moment:
        """Rehearses a batch of training, after a first step.

        Args:
            kind: Of the batch.
            budget: Its positions; None takes the config's.
        """
        return self._trained(f"a batch of {kind}", self.batches.training(kind, budget))

    def _first_step(self, batch: Batch) -> None:
        """Has the optimizer create its state."""
        with self._cast():
            self.stepping.batch(batch)
            gradients = [own_part(p.grad) for p in self.stepping.trained if p.grad is not None]
            self._gradients = _bytes(gradients)
            self.stepping.step()
            self.meter.label(map(own_part, self.stepping.state), OPTIMIZER)

    def _trained(self, name: str, batch: Batch) -> Moment:
        with self._cast():
            if self.settings.accumulate == 1:
                self.stepping.forget()  # else the gradients of the batches before are there
            self.meter.restart()
            self.stepping.batch(batch)
        return self._moment(name, batch, self.meter.flops)

    def _optimizer_step(self) -> Moment:
        with self._cast():
            self.meter.restart()
            self.stepping.step()
        moment = self._moment("the optimizer's step")
        with self._cast():
            self.stepping.forget()
        return moment

    def _evaluation(self) -> list[Moment]:
        """Rehearses reading a batch with its answers; what writing takes is added up."""
        batch, copies = self.batches.evaluation(), any(isinstance(c, Divergence) for c in self.callbacks)
        with self._cast(), gathered(self.model):
            if copies and self.model.reference.needs_copy:
                with self.meter.counting(TEACHER):
                    self.model.reference.copy()
            self.meter.restart()
            self.model.eval()
            with torch.no_grad(), self.settings.forward("cpu"):
                self.model.read(batch)
            moment = self._moment("an evaluation", batch)
            self.model.reference.release()
            self.meter.restart()
            written = self._moment("writing answers", batch)
        return [moment, _with(written, CACHE, self._cache(batch))]

    def _importance(self) -> list[Moment]:
        trackers = [callback for callback in self.callbacks if isinstance(callback, ImportanceTracker)]
        rows: dict[str, int] = {}
        for name in self.data.probes if trackers else ():
            probe = self.data.probes[name]
            rows[probe.modality] = max(rows.get(probe.modality, 0), min(probe.batch_size, probe.examples))
        found = [self._measured(tracker, *probed) for tracker in trackers for probed in rows.items()]
        return [moment for moment in found if moment is not None]

    def _measured(self, tracker: ImportanceTracker, modality: str, rows: int) -> Moment | None:
        # signs of whole matrices and ablation take no memory to speak of, and ask for values
        names = tuple(n for n in tracker.estimators if not (ESTIMATORS[n].signed or ESTIMATORS[n].ablated))
        acting = self.model.tuning.measuring(modality)
        if not names or acting is None:
            return None
        options = ProbeOptions.of({**tracker.options, "self_test": False, "distributed": False})
        batch = self.batches.probe(modality, rows)
        with self._cast(), gathered(self.model), acting:
            self.meter.restart()
            work = Measurement(self.model.llm, "plan", names, options, silent)
            with torch.no_grad(), self.settings.forward("cpu"):
                inputs = self.model.embed(batch)
            work.measure([{**inputs, "ids": batch.ids, "input_ids": batch.input_ids}])
        moment = self._moment(f"importance, {modality}", batch)
        maps = 4 * sum(site.size for site in work.table.sites) * len(names) if options.top_fraction else 0
        return _with(_with(moment, ACTIVATIONS, -maps), SCORES, maps) if maps else moment

    def _moment(self, name: str, batch: Batch | None = None, flops: int = 0) -> Moment:
        parts = {label: size for label, size in self.meter.peak.items() if size}
        if self.ranks > 1 and self.settings.replicas is None:  # DDP reduces gradients in copies of its own
            parts[BUCKETS] = self._gradients
        rows, positions = (len(batch), batch.input_ids.numel()) if batch is not None else (0, 0)
        return Moment(name, parts, flops, rows, positions)

    def _cache(self, batch: Batch) -> int:
        """Returns the bytes of the keys and values of a batch that is answered at full length."""
        config = self.model.llm.config.get_text_config()
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        asked = [getattr(callback, "max_new_tokens", None) or 0 for callback in self.callbacks]
        length = batch.input_ids.shape[1] + max([self.model.max_new_tokens, *asked])
        bits = 16 if "16" in self.settings.precision else torch.finfo(self.settings.dtype).bits
        return 2 * config.num_hidden_layers * heads * width * length * len(batch) * bits // 8

    def _sizes(self) -> Sizes:
        model = self.model
        parts: dict[str, nn.Module] = {"llm": model.llm, "encoder": model.encoder, "adaptor": model.adaptor}
        counts = {
            name: (
                sum(p.numel() for p in part.parameters() if p.requires_grad),
                sum(p.numel() for p in part.parameters()),
            )
            for name, part in parts.items()
        }
        return Sizes(counts, _bytes(self.stepping.trained), _bytes(self.stepping.state), self._gradients)

    @contextmanager
    def _cast(self) -> Iterator[None]:
        with self._shadow.cast(), shapes_only():
            yield


def _bytes(tensors: Iterable[Tensor | None]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors if tensor is not None)


def _with(moment: Moment, label: str, more: int) -> Moment:
    parts = {**moment.parts, label: moment.parts.get(label, 0) + more}
    return Moment(moment.name, parts, moment.flops, moment.rows, moment.positions)
