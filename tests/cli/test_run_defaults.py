"""Callbacks that a command adds by itself."""

from __future__ import annotations

import pytest
from jsonargparse import Namespace
from lightning.pytorch import Callback

from textkeep.callbacks import ImportanceTracker, TuningImportance
from textkeep.cli.run_defaults import default_callbacks
from textkeep.lightning_modules import AdaptorOnly, FullFineTuning, ImportanceRates, Tuning, UniformRates

TRAINER = Namespace(enable_progress_bar=None, enable_checkpointing=None, enable_model_summary=None)


@pytest.mark.parametrize(
    ("tuning", "verb", "present", "count"),
    [
        (FullFineTuning(rates=UniformRates(ImportanceRates(probe="heldout_text"))), "fit", [ImportanceTracker()], 1),
        (FullFineTuning(rates=ImportanceRates(probe="heldout_text")), "fit", [TuningImportance()], 0),
        (FullFineTuning(rates=ImportanceRates(probe="heldout_text")), "test", [], 0),
        (FullFineTuning(rates=ImportanceRates("importance/heldout_text/step=000000")), "fit", [], 0),
        (AdaptorOnly(), "fit", [], 0),
    ],
)
def test_what_the_tuning_needs_is_measured(tuning: Tuning, verb: str, present: list[Callback], count: int) -> None:
    added = default_callbacks(present, TRAINER, verb, tuning)
    assert sum(isinstance(callback, TuningImportance) for callback in added) == count
