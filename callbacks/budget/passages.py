"""The text on which a budget is measured."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from ...evaluation import Losses
from ...foundation.errors import UserError
from ...foundation.ranks import Ranks
from ..contract import Batch
from ..evaluations.evaluation import limited
from ..evaluations.measuring import scoring
from ..stopping.give_way import taking_turns


class Passages:
    """Fixed text of the data module: a probe, or a set that is read whole.

    Args:
        text: Name of a probe of text (``data.probes``), of a set (``data.sets``), or what names a source: an embedded
            set, a .txt file (passages between empty lines), a manifest.
        limit: Most passages of a set; a fixed choice. A probe says itself how many it has.
    """

    def __init__(self, text: str, limit: int | None) -> None:
        self.text = text
        self.limit = limit
        self._read: list[Any] | None = None

    def check(self, data: Any) -> None:
        """Reads a set; refuses anything that is neither a set nor a probe of text.

        Raises:
            UserError: With what is allowed.
        """
        if not hasattr(data, "evaluation_set"):
            raise UserError(f"TextBudget needs the data module SpeechTextData, got {data!r}")
        if self.text not in data.probes:
            self._examples(data)
        elif data.probes[self.text].modality == "speech":
            texts = ", ".join(name for name, probe in data.probes.items() if probe.modality != "speech") or "none"
            raise UserError(
                f"TextBudget.text: the probe '{self.text}' is of speech; allowed: a probe of text ({texts})"
            )

    def names(self, data: Any) -> set[str]:
        """Returns the names that a config may use for this text: its own, and that of a probe's or set's source."""
        probe = data.probes.get(self.text)
        return {self.text} if probe is None else {self.text, str(probe.source)}

    def losses(self, trainer: Trainer, pl_module: LightningModule, untouched: bool = False) -> Losses:
        """Measures the summed loss of each passage; the ranks share the passages, and each gets all losses.

        Args:
            trainer: Gives data, precision and ranks.
            pl_module: Offers ``answer_losses`` and ``untouched_losses``; ends as it was, random states included.
            untouched: Ask the LLM as it was before tuning.
        """
        model: Any = pl_module
        read = model.untouched_losses if untouched else model.answer_losses
        mine: dict[str, tuple[float, int]] = {}
        with scoring(pl_module), taking_turns(trainer) as give_way:
            for batch in self._batches(trainer):
                give_way()
                with trainer.precision_plugin.val_step_context():
                    sums, tokens = read(trainer.strategy.batch_to_device(batch))
                found = zip(batch.ids, sums.double().tolist(), tokens.tolist(), strict=True)
                mine |= {identity: (total, int(count)) for identity, total, count in found if count}
        return {identity: loss for part in Ranks().gather(mine) for identity, loss in part.items()}

    def _batches(self, trainer: Trainer) -> Iterable[Batch]:
        """Returns this rank's batches."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        if self.text in data.probes:
            return islice(data.probe_batches(self.text), trainer.global_rank, None, trainer.world_size)
        return data.loader(self._examples(data), "text")

    def _examples(self, data: Any) -> list[Any]:
        if self._read is None:
            try:
                found = data.evaluation_set(self.text)
            except (OSError, ValueError) as error:
                probes = ", ".join(data.probes) or "none is defined"
                raise UserError(f"TextBudget.text: {error}; or a name of data.probes ({probes})") from error
            self._read = limited([example for example in found if example.has("text") and example.target], self.limit)
            if not self._read:
                raise UserError(
                    f"TextBudget.text: {self.text} has no text with an answer; allowed: plain text, or questions"
                )
        return self._read
