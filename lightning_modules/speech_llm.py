"""The model: a speech encoder, an adaptor and a text LLM that learns to listen."""

from __future__ import annotations

import warnings
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from lightning.pytorch import Callback
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from ..foundation.assets import resolve
from ..foundation.ranks import share_rank_zero
from ..foundation.run_names import TRAIN_LOSS, cross_entropy, stage_key
from .combination import check_combination, check_measured
from .contract import Batch
from .ears.adaptors import Adaptor
from .ears.ear import Ear
from .ears.encoder_adaptor import EncoderAdaptor
from .ears.encoders import SpeechEncoder
from .ears.front_end import FrontEnd
from .finite_steps import FiniteSteps, OnNonfinite, SkippedStep
from .listening import Listening, ReadBatch
from .llm.compiled_blocks import CompiledBlocks
from .llm.pretrained import reading_from
from .llm.reference import ReferenceLLM
from .llm.text_base import check_base, open_base
from .llm.vocabulary import check_vocabulary
from .losses.modality_losses import ModalityLosses
from .losses.token_normalizer import TokenNormalizer
from .objectives import AnswerCrossEntropy
from .objectives.loss_term import LossTerm
from .objectives.loss_terms import LossTerms, Total
from .optimization import build_optimizer, scale_layers
from .precision import default_dtype
from .schedule import Schedule
from .supported_trainer import check_supported
from .tuning import FullFineTuning, Tuning


class SpeechLLM(Listening):
    """Speech encoder, adaptor and LLM (LLaMA-Omni's stage 1, arXiv 2409.06666), trained on answers.

    The LLM is kept whole, as transformers loads it, and fed ``inputs_embeds``: text through its own embedding table,
    speech through encoder and adaptor. Weights are loaded in :meth:`configure_model`; the constructor reads only
    configurations.

    Args:
        llm: Hub id, folder or ``asset:`` name of a causal LM with a chat template; or, with ``ear``, of an audio LLM.
        encoder: The speech encoder; None if ``ear`` brings its own.
        adaptor: Maps its frames to LLM positions; None if ``ear`` brings its own.
        tuning: What moves and how fast.
        objectives: What a step minimises; the first one's token count divides the sums. Default: answer
            cross-entropy.
        optimizer: Its class and settings; the learning rate is that of the LLM.
        lr_schedule: Name of a schedule of ``transformers.get_scheduler``, by step.
        warmup_ratio: Fraction of all steps over which the rate rises.
        lr_schedule_options: Further settings of the schedule, such as ``{min_lr_rate: 0.1}`` for
            ``cosine_with_min_lr``.
        adaptor_weights: Safetensors file or ``asset:`` name to start the adaptor from.
        gradient_checkpointing: Recompute the LLM's activations in the backward pass: less memory, a third more time.
        compile_blocks: Compile the LLM's blocks for training steps (``torch.compile``); measurements and evaluations
            run them as they are. The first step waits for the compiler.
        max_new_tokens: Maximum length of an answer from :meth:`generate`.
        on_nonfinite: What to do if a loss or a gradient is infinite or not a number: ``stop`` ends the run before the
            step, naming its examples; ``skip_step`` continues without it, counts it (``train/skipped_steps``) and stops
            after ten in a row. The loss scale of ``16-mixed`` skips on its own.
        ear: What turns sound into LLM positions, if not an encoder and an adaptor: ``OwnEar`` for an audio LLM.
        base: The text LLM that ``llm`` came from: yardstick and teacher on text in place of the initial ``llm``.
    """

    def __init__(
        self,
        llm: str,
        encoder: SpeechEncoder | None = None,
        adaptor: Adaptor | None = None,
        tuning: Tuning | None = None,
        objectives: list[LossTerm] | None = None,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        lr_schedule: str = "cosine",
        warmup_ratio: float = 0.03,
        adaptor_weights: str | None = None,
        gradient_checkpointing: bool = False,
        max_new_tokens: int = 32,
        lr_schedule_options: dict[str, Any] | None = None,
        on_nonfinite: OnNonfinite = "stop",
        ear: Ear | None = None,
        base: str | None = None,
        compile_blocks: bool = False,
    ) -> None:
        super().__init__()
        with warnings.catch_warnings():  # the CLI stores the parts' class paths, not the parts (Lightning#11494)
            warnings.filterwarnings("ignore", message=".*is an instance of `nn.Module`.*")
            self.save_hyperparameters()
        self.llm_source = llm
        self.ear = ear or EncoderAdaptor(adaptor_weights)
        self.encoder, self.adaptor = self.ear.parts(encoder, adaptor)
        self.tuning = tuning or FullFineTuning()
        terms = objectives or [AnswerCrossEntropy()]
        self.objectives = LossTerms(terms)
        self.optimizer_factory = optimizer
        self.schedule = Schedule(lr_schedule, warmup_ratio, lr_schedule_options)
        self.gradient_checkpointing = gradient_checkpointing
        if compile_blocks and getattr(self.tuning, "gate", None) is not None:
            raise ValueError("model.compile_blocks: a gate of LoRA changes with each batch; allowed: LoRA without gate")
        self.compile_blocks = compile_blocks
        self._compiled: CompiledBlocks | None = None
        if max_new_tokens < 1:
            raise ValueError(f"model.max_new_tokens: {max_new_tokens} does not fit; allowed: at least 1")
        self.max_new_tokens = max_new_tokens
        self.tokenizer = self.ear.tokenizer(llm)
        self.base_source = base
        if base is not None:
            check_base(self.tokenizer, llm, base)
        self.llm: Any = None
        self._normalizer = TokenNormalizer()
        self._finite = FiniteSteps(on_nonfinite)
        self._eval_losses = ModalityLosses()
        check_combination(self.tuning, terms, self.ear.of_audio_llm, self.ear.adaptor_is_new)

    # ------------------------------------------------------------------ weights

    @property
    def front_end(self) -> FrontEnd:
        """What the data module needs to know; available before any weights are loaded."""
        twins = any(objective.needs_twins for objective in self.objectives.over_tokens)
        return self.ear.front_end(self, twins)

    def needs_whole(self) -> str | None:
        """Names what is untested with sharded weights (``FSDP2``): a base beside the LLM, compiled blocks."""
        if self.compile_blocks:
            return "model.compile_blocks"
        return None if self.base_source is None else "model.base"

    def configure_callbacks(self) -> list[Callback]:
        """Refuses an unsupported Trainer, in the earliest hook: before ranks meet or weights are read."""
        check_supported(self.trainer, [self.tuning, self.ear, self, *self.objectives])
        return []

    def configure_model(self) -> None:
        """Loads weights, sizes the adaptor and applies the tuning's freezing, before DDP wraps the module."""
        if self.llm is not None:
            return
        path, dtype = resolve(self.llm_source), torch.get_default_dtype()
        with reading_from("model.llm", self.llm_source):
            self.llm = self.ear.open(path, dtype, **self.tuning.loading_options())
        check_vocabulary(self.llm, self.tokenizer, f"model.llm: '{self.llm_source}'")
        self.ear.begin(self)
        base = None if self.base_source is None else partial(open_base, self.base_source)
        self._reference = ReferenceLLM(partial(self.ear.untouched, path), self.llm, self.tuning.untouched, base)
        with default_dtype(torch.float32):
            self.tuning.prepare(self.llm, self.encoder, self.adaptor)
        if brought := self.ear.brought_lora():
            self.tuning.adopt(self.llm, brought)
        self.objectives.build(self)
        if self.gradient_checkpointing:
            arguments = {"use_reentrant": False, **self.tuning.recompute_options()}
            self.llm.gradient_checkpointing_enable(gradient_checkpointing_kwargs=arguments)
        if self.tuning.loading_options():  # bitsandbytes may repack the weights at the first forward pass
            self.note_frozen()
        if self.compile_blocks:
            self._compiled = CompiledBlocks(self.llm)
        self.train(self.training)

    @property
    def digests(self) -> tuple[str, str | None]:
        """Names of the untouched LLM's weights and of the frozen ones; set where another rank has read them."""
        return self._reference.untouched_fingerprint, self._frozen_hash

    @digests.setter
    def digests(self, found: tuple[str, str | None]) -> None:
        self._reference.untouched_fingerprint, self._frozen_hash = found

    # ------------------------------------------------------------------ steps

    def on_fit_start(self) -> None:
        """Sets the initial values of a new fit, and lets the objectives prepare."""
        if self.trainer.ckpt_path is None:
            share_rank_zero(self.tuning.initialize(self))
        self.objectives.start(self)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Returns the objectives' losses, scaled by :class:`TokenNormalizer` to give the token mean's gradients."""
        if self._compiled is not None:
            self._compiled.begin()
        total = self.step_total(batch)
        if len(total.values) > 1:
            self.log_dict(
                {stage_key("train", name): value for name, value in total.values.items()}, batch_size=len(batch)
            )
        self.log(TRAIN_LOSS, total.mean, prog_bar=True, batch_size=len(batch))
        self._finite.note(batch.ids, total.mean)
        accumulate, strategy = self.trainer.accumulate_grad_batches, self.trainer.strategy
        return self._normalizer.scaled(total.loss, total.tokens, accumulate, strategy)

    def step_total(self, batch: Batch) -> Total:
        """Returns the objectives' losses on a batch; those that need the same predictions share a forward pass."""
        with self._shared.step():
            return self.objectives.total(self, batch)

    def on_after_backward(self) -> None:
        """Ends the use of compiled blocks: what is measured between two steps must meet the blocks themselves."""
        if self._compiled is not None:
            self._compiled.end()

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Turns accumulated gradients into those of the token mean and adds penalties, before clipping."""
        self._normalizer.normalize(self.parameters(), self.trainer.strategy)
        self.objectives.add_penalty_gradients(self)
        self.tuning.edit_gradients(self.llm)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips as the Trainer asks if losses and gradients are finite, otherwise ends the run or the step."""
        self._finite.clip(self, optimizer, gradient_clip_val, gradient_clip_algorithm)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Runs the batch and lets the optimizer take its step, if accepted; the gradients are freed at once.

        Lightning would free them between the next batch's forward and backward pass, when memory use peaks.
        """
        with suppress(SkippedStep):
            super().optimizer_step(*args, **kwargs)
        self.zero_grad(set_to_none=True)

    @property
    def in_doubt(self) -> bool:
        """Whether several steps in a row were skipped; the checkpoint before them is then kept."""
        return self._finite.in_doubt

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the number of skipped steps."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["finite_steps"] = self._finite.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores that count."""
        super().on_load_checkpoint(checkpoint)
        self._finite.restore(checkpoint.get("finite_steps", {}))

    def validation_step(  # type: ignore[override]  # Lightning hands on whatever a step gives
        self, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> ReadBatch:
        """Collects the answer loss by modality; callbacks get the reading and need not repeat it."""
        read = self.read(batch)
        self._eval_losses.update(read.losses, read.tokens, batch.modality)
        return read

    def on_validation_epoch_end(self) -> None:
        """Logs the mean over all answer tokens of all ranks, for speech and for text."""
        self._log_means("val")

    def test_step(  # type: ignore[override]
        self, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> ReadBatch:
        """Does the same as in validation."""
        return self.validation_step(batch, batch_idx, dataloader_idx)

    def on_test_epoch_end(self) -> None:
        """Logs under ``test/``."""
        self._log_means("test")

    def _log_means(self, stage: str) -> None:
        for modality, value in self._eval_losses.compute().items():
            self.log(stage_key(stage, cross_entropy(modality)), value, prog_bar=stage == "val", sync_dist=True)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Builds one optimizer over the tuning's named groups, and a schedule by step."""
        made = build_optimizer(
            self.optimizer_factory,
            self.tuning.parameter_groups(self.llm, self.encoder, self.adaptor),
            self.objectives.parameters(),
            self.schedule,
            self.trainer.estimated_stepping_batches,
        )
        self.tuning.attach_to_optimizer(self.llm, made["optimizer"])
        return made

    def on_train_start(self) -> None:
        """Refuses to start while the tuning waits for a measurement; callbacks have had their turn."""
        check_measured(self.tuning)

    def apply_layer_rates(self) -> None:
        """Updates the running optimizer to the tuning's layer-wise rates after they have been measured."""
        multipliers = self.tuning.multipliers(self.llm)
        if multipliers is not None:
            scale_layers(self.optimizers(use_pl_optimizer=False), self.lr_schedulers(), multipliers)  # type: ignore[arg-type]
