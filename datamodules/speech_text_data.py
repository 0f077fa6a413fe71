"""The DataModule: spoken and text questions for training and measuring."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any, Literal

import lightning as L
from torch import Tensor

from ..foundation.run_names import SKIPPED
from .batches.augment import Augment
from .batches.batch import Batch
from .batches.batch_loader import BatchLoader
from .batches.front_end import Encode, SpeechFrontEnd
from .batches.loader_factory import LoaderFactory, LoaderOptions
from .batches.pairs import matched
from .batches.prompts import SPEECH_INSTRUCTION
from .connection import BatchSettings, ModelConnection, epoch_and_limit
from .evaluation_sets import EvaluationSets
from .probes import Probe, ProbeSet
from .replay import Replay, ReplayPool
from .sources.audio import MAX_SECONDS, read_waveform
from .sources.bad_examples import BadExampleError, BadExamples, OnBadExample
from .sources.example import Example, Modality
from .sources.named import Sources, Splits

_MODALITIES: dict[str, list[Modality]] = {"speech": ["speech"], "text": ["text"], "both": ["speech", "text"]}


class SpeechTextData(L.LightningDataModule):
    """Spoken questions and their text twins.

    A source is the path of a JSONL manifest, ``spoken-facts/train`` (the embedded set; also ``validation``, ``test``,
    ``general``), a ``Source`` (``class_path: HFDataset``), or a list of these. Batches hold as many rows as the token
    budget allows, all of similar length; the ranks of a distributed run receive different ones. A run continues in
    mid-epoch with the next batch.

    Example::

        data:
          class_path: SpeechTextData
          init_args:
            train: spoken-facts/train
            val: spoken-facts/validation
            test: [spoken-facts/test, {class_path: HFDataset, init_args: {path: me/my-questions, split: test}}]
            train_modalities: both
            probes:
              indomain_text: {source: spoken-facts/train, modality: text, examples: 32}
              heldout_text: {source: spoken-facts/general, modality: text, examples: 32}
              speech: {source: spoken-facts/validation, modality: speech, examples: 32}

    Without a Trainer: ``data.connect(front_end); data.setup("fit"); data.train_dataloader()``.

    Args:
        train: Source of training.
        val: Source of validation.
        test: Source of the test.
        predict: Source of prediction; by default that of the test.
        train_modalities: "both" trains each example in every modality that it has, as rows of different batches.
        replay: Text to rehearse in separate batches (``{source: my/text.txt, ratio: 0.05}``).
        tokens_per_batch: Most positions of a batch (rows x longest row); an adaptor frame counts as a token.
        eval_tokens_per_batch: The same in evaluation; None takes four times as many (no backward pass there).
        max_examples_per_batch: Most rows of a batch, or None.
        seed: Seed of shuffling and augmentation.
        num_workers: Processes that read clips, per rank.
        worker_timeout: Seconds after which a batch that does not come from them ends the run; null waits forever.
        on_bad_example: "raise" names the first bad example and stops; "skip" leaves bad ones out and counts them.
        max_seconds: Longest clip allowed.
        speech_instruction: Text after the audio in the user turn; may be empty.
        text_instruction: Text after a text question.
        system: System prompt for examples that bring none; None leaves the chat template's default.
        template_options: More variables for the chat template (``{enable_thinking: false}``).
        feature_cache: Folder for outputs of the frozen encoder, or None; needs a frozen encoder and no augmentation.
        eval_limit: Most items of validation, test and prediction, each; a fixed choice.
        speed_perturb: Speeds of which one is drawn per training clip and epoch, such as [0.9, 1.0, 1.1].
        noise_snr_db: Range of the signal-to-noise ratio of white noise added to training clips.
        probes: Fixed examples for measuring importance, by name.
        sets: Further sources that callbacks score (EvaluationSuite), by name.

    Raises:
        ValueError: If arguments contradict each other.
    """

    def __init__(
        self,
        train: Sources = None,
        val: Sources = None,
        test: Sources = None,
        predict: Sources = None,
        train_modalities: Literal["speech", "text", "both"] = "speech",
        replay: Replay | None = None,
        tokens_per_batch: int = 2048,
        eval_tokens_per_batch: int | None = None,
        max_examples_per_batch: int | None = None,
        seed: int = 0,
        num_workers: int = 0,
        worker_timeout: float | None = 600.0,
        on_bad_example: OnBadExample = "raise",
        max_seconds: float = MAX_SECONDS,
        speech_instruction: str = SPEECH_INSTRUCTION,
        text_instruction: str = "",
        system: str | None = None,
        template_options: dict[str, Any] | None = None,
        feature_cache: str | None = None,
        eval_limit: int | None = None,
        speed_perturb: list[float] | None = None,
        noise_snr_db: tuple[float, float] | None = None,
        probes: dict[str, Probe] | None = None,
        sets: dict[str, Sources] | None = None,
    ) -> None:
        super().__init__()
        if train_modalities not in _MODALITIES:
            raise ValueError(f"train_modalities: {train_modalities!r} (allowed: {', '.join(_MODALITIES)})")
        if feature_cache and (speed_perturb or noise_snr_db):
            raise ValueError("feature_cache keeps one output a clip: allowed without speed_perturb and noise_snr_db")
        self.train_modalities = train_modalities
        budgets = (tokens_per_batch, eval_tokens_per_batch, max_examples_per_batch)
        loaders = LoaderOptions(*budgets, seed, num_workers, worker_timeout)
        instructions = {"speech_instruction": speech_instruction, "text_instruction": text_instruction}
        prompts = {**instructions, "system": system, "template_options": template_options}
        augment = Augment(speed_perturb, noise_snr_db, seed) if speed_perturb or noise_snr_db else None
        self.settings = BatchSettings(loaders, prompts, max_seconds, augment, feature_cache)
        self.bad = BadExamples(on_bad_example)
        self.connection = ModelConnection(self.settings, self.bad, self._on_skip)
        self.probes = probes or {}
        self._probe_set = ProbeSet(self.probes, self.bad)
        self._sets = EvaluationSets(sets or {}, self.bad)
        self.splits = Splits({"train": train, "val": val, "test": test, "predict": predict}, self.bad, eval_limit)
        self._replay = ReplayPool(replay, self.bad)
        # Weak, so that a loader which nobody uses any more is freed at once, with its workers.
        self._train_loader: weakref.ref[BatchLoader] | None = None

    def needs_whole(self) -> str | None:
        """Names the feature cache, which ``FSDP2`` refuses: each rank would run the encoder on its own clips."""
        return None if self.settings.feature_cache is None else "data.feature_cache"

    def connect(self, front_end: SpeechFrontEnd, encode: Encode | None = None) -> None:
        """Connects the data with its model: ``encode`` is the frozen encoder, for ``feature_cache``."""
        self.connection.connect(front_end, encode)

    def setup(self, stage: str | None = None) -> None:
        """Reads the sources of a stage ("fit", "validate", "test", "predict"; None reads all).

        Raises:
            ValueError: If the source of the stage is not set.
        """
        self.connection.forget_trainer()
        self.splits.read_stage(stage)
        if stage in ("fit", None):
            self._replay.examples()

    def teardown(self, stage: str | None = None) -> None:
        """Ends the workers of training."""
        loader = self._train_loader() if self._train_loader else None
        if stage in ("fit", None) and loader is not None:
            loader.close()

    def examples(self, split: str) -> list[Example]:
        """Returns the usable examples of "train", "val", "test" or "predict"; read once."""
        return self.splits.read(split)

    def train_dataloader(self) -> BatchLoader:
        """Returns shuffled batches with answers (the same ones in each epoch under ``trainer.overfit_batches``)."""
        examples, modalities = self.examples("train"), _MODALITIES[self.train_modalities]
        shuffle = not getattr(self.trainer, "overfit_batches", 0)
        epoch, limit = epoch_and_limit(self.trainer)
        replay, ratio = self._replay.examples(), self._replay.ratio
        loader = self.factory(examples).train(examples, modalities, epoch, shuffle, replay, ratio, limit)
        self._log(self._replay.announce(loader.position.sampler, modalities))
        self._train_loader = weakref.ref(loader)
        return loader

    def val_dataloader(self) -> dict[str, BatchLoader]:
        """Returns loaders "speech" and "text" over matched pairs: the same ids in the same batches."""
        return self._evaluation("val")

    def test_dataloader(self) -> dict[str, BatchLoader]:
        """Returns what ``val_dataloader`` does, of the test items."""
        return self._evaluation("test")

    def predict_dataloader(self) -> dict[str, BatchLoader]:
        """Returns left-padded prompts of the items to predict, by modality."""
        return self._evaluation("predict", answers=False)

    def eval_pairs(self, split: str | None = None) -> list[Example]:
        """Returns matched pairs of ``split``: by default of validation, or of test while testing or without it."""
        return matched(self.examples(split or self._eval_split()))[0]

    def prompt_loaders(self, split: str | None = None) -> dict[str, BatchLoader]:
        """Returns left-padded prompts of ``eval_pairs(split)``, "speech" and "text"; each item on one rank only."""
        return self._evaluation(split or self._eval_split(), answers=False)

    def evaluation_set(self, name: str) -> list[Example]:
        """Returns the examples of one of ``sets``, a manifest or ``spoken-facts/SPLIT``; answers may be missing."""
        return self._sets.read(name)

    def loader(
        self,
        examples: list[Example],
        modality: Modality,
        answers: bool = True,
        twins: bool = False,
        speech_instruction: str | None = None,
    ) -> BatchLoader:
        """Makes a loader of any examples in one modality (a hearing test with other clips); each on one rank only.

        With ``twins``, batches of speech hold the same questions as text (``batch.twin``). ``speech_instruction`` takes
        the place of the configured one.
        """
        factory = self.factory(examples if modality == "speech" else [])
        if speech_instruction is not None:
            factory = factory.asking({**self.settings.prompts, "speech_instruction": speech_instruction})
        return factory.loader(examples, modality, answers, twins)

    def waveform(self, example: Example, sampling_rate: int) -> Tensor:
        """Reads an example's clip, (samples,), for a model of another kind (a recogniser)."""
        return read_waveform(example, sampling_rate, self.settings.max_seconds)

    def training_texts(self) -> BatchLoader:
        """Returns training as text, each example on one rank only: the text rows and text twins of its batches."""
        known = [example for example in self.examples("train") if example.has("text")]
        return self.loader([*known, *self._replay.examples()], "text")

    def probe_batches(self, name: str) -> list[Batch]:
        """Returns right-padded CPU batches of a probe, with answers; the same list on every rank and at every call."""
        return self._probe_set.batches(name, self.factory)

    @property
    def end_id(self) -> int:
        """The token that ends an answer in the connected model's chat template."""
        return self.factory().prompt.end_id

    @property
    def replays(self) -> bool:
        """Whether text is replayed beside the training examples."""
        return self._replay.ratio > 0

    @property
    def skipped(self) -> dict[str, int]:
        """Examples left out so far on this rank: reason -> count."""
        return dict(self.bad.counts)

    @property
    def left_out(self) -> dict[str, str]:
        """Examples left out so far on this rank: place ("train.jsonl:12") -> reason."""
        return dict(self.bad.places)

    def factory(self, cached: Sequence[Example] = ()) -> LoaderFactory:
        """Returns the maker of loaders for the model, once the clips of ``cached`` are in the feature cache, if any.

        Raises:
            ValueError: If no model is connected.
        """
        factory = self.connection.factory(self.trainer)
        factory.fill_cache(cached)
        return factory

    def _evaluation(self, split: str, answers: bool = True) -> dict[str, BatchLoader]:
        return self.factory(self.examples(split)).evaluation(self.examples(split), answers)

    def _eval_split(self) -> str:
        testing = getattr(self.trainer, "testing", False)
        return "test" if testing or self.splits.sources["val"] is None else "val"

    def _on_skip(self, errors: list[BadExampleError]) -> None:
        """Counts what a worker left out, and logs the count; that of several ranks is ``SkippedExamples``' to sum."""
        for error in errors:
            self.bad.report(error)
        if self.trainer is None or self.trainer.world_size == 1:
            self._log({SKIPPED: float(len(self.bad.places))})

    def _log(self, metrics: dict[str, float]) -> None:
        if self.trainer is not None and metrics:
            for logger in self.trainer.loggers:
                logger.log_metrics(metrics, self.trainer.global_step)
