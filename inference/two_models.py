"""A model and the base it came from, prompted identically and mixed in any proportion."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..callbacks.evaluations.item_scorer import Scores
from ..datamodules import Example
from ..datamodules.sources.example import Modality
from ..evaluation import Prediction
from ..foundation.errors import UserError
from ..lightning_modules.llm.changes import DenseChange
from ..lightning_modules.llm.vocabulary import check_same_ids
from .edit_scoring import Scored
from .loaded_model import LoadedModel
from .merging import base_values, merge
from .text_llm import TextLLM


class TwoModels:
    """Prompts a model and the base it came from.

    Both read text in the base's chat template, so that any difference is due to the weights. Speech goes to the second
    one in its own format, if it can listen.

    Args:
        base: A text LLM.
        tuned: A model that came from it: an audio LLM or a text LLM.

    Attributes:
        reader: The second one, prompted in the base's chat template.
    """

    def __init__(self, base: LoadedModel, tuned: LoadedModel) -> None:
        self.base, self.tuned = base, tuned
        words = replace(base.origin, name=tuned.origin.name)
        self.reader = LoadedModel(TextLLM(tuned.llm, base.front_end.tokenizer), words)

    @property
    def hears(self) -> bool:
        """Whether the second one can be asked by voice."""
        return self.tuned.speech_llm is not None

    @property
    def deafness(self) -> str:
        """Why the second one cannot be asked by voice, in words."""
        return f"cannot be asked by voice ({self.tuned.origin.deaf or 'it is a text LLM'})"

    def check_texts(self, examples: Sequence[Example]) -> None:
        """Refuses texts that the two tokenize differently, including the chat template around them.

        Raises:
            ValueError: With the first one that differs.
        """
        texts = [text for example in examples for text in (example.question, example.target)]
        ids = {int(n) for batch in self.base.inputs(examples, "text") for n in batch["input_ids"].unique()}
        ours, theirs = (model.front_end.tokenizer for model in (self.base, self.tuned))
        check_same_ids(ours, theirs, texts, ids, (self.base.origin.name, self.tuned.origin.name))

    def asked(self, modality: Modality) -> LoadedModel:
        """Returns the second one as it is prompted: for text, in the base's chat template."""
        return self.reader if modality == "text" else self.tuned


class Mixtures(TwoModels):
    """Sets the weights of the second model to a point between the two.

    Args:
        base: A text LLM.
        tuned: A model that came from it, whose weights are set.

    Attributes:
        change: Sets them.

    Raises:
        UserError: If the base's weights do not match, or none differ.
    """

    def __init__(self, base: LoadedModel, tuned: LoadedModel) -> None:
        llm = merge(tuned)
        self.change = DenseChange(llm, base_values(base, llm))
        if not self.change.names:
            raise UserError(f"{base.origin.name} and {tuned.origin.name} have the same weights: nothing to interpolate")
        super().__init__(base, tuned)


@dataclass(frozen=True)
class ModelQuestions:
    """What a model is scored on.

    Attributes:
        heldout: Texts to read.
        asked: Questions to answer, written and, if the model can listen and they have clips, spoken.
        batch_size: Examples at once.
    """

    heldout: list[Example]
    asked: list[Example]
    batch_size: int = 8

    def score(self, models: TwoModels) -> Scored:
        """Scores the second model with its current weights."""
        started = time.perf_counter()
        heldout = {name: (loss / tokens, tokens) for name, loss, tokens in self._losses(models, self.heldout, "text")}
        ways: list[Modality] = ["text", "speech"] if models.hears else ["text"]
        records = [record for way in ways for record in self.records(models, way)]
        return Scored(records, heldout, time.perf_counter() - started)

    def records(self, models: TwoModels, modality: Modality) -> list[Prediction]:
        """Returns the answers of the second model to the questions that have a modality."""
        asked = [example for example in self.asked if example.has(modality)]
        if not asked:
            return []
        model, found = models.asked(modality), Scores()
        written = model.write(asked, modality, batch_size=self.batch_size)
        texts = [text for part in written for text in part.texts]
        found.responses = {example.id: text for example, text in zip(asked, texts, strict=True)}
        losses = self._losses(models, asked, modality)
        found.losses = {name: (loss / tokens, tokens) for name, loss, tokens in losses}
        records = (found.record(example, modality) for example in asked)
        return [record for record in records if record is not None]

    def _losses(
        self, models: TwoModels, examples: Sequence[Example], modality: Modality
    ) -> list[tuple[str, float, int]]:
        return models.asked(modality).summed_losses(examples, modality, batch_size=self.batch_size)


def folder_of(name: str) -> Path:
    """Returns the local folder of a hub id, an asset or a folder, with all files fetched.

    Raises:
        UserError: If it cannot be fetched.
    """
    from huggingface_hub import snapshot_download

    from ..foundation.assets import resolve

    source = resolve(name)
    if Path(source).is_dir():
        return Path(source)
    try:
        return Path(snapshot_download(source))
    except (OSError, ValueError) as error:
        raise UserError(f"{name} cannot be fetched: {str(error).splitlines()[0]}") from error
