"""Which model the data is connected to, and what is made anew for another one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from textkeep.datamodules import Probe, SpeechTextData
from textkeep.datamodules.connection import epoch_and_limit

from .conftest import EnergyFrontEnd, ManifestMaker


def trainer_of(front_end: EnergyFrontEnd) -> Any:
    module = SimpleNamespace(front_end=front_end, encode_speech=None)
    strategy = SimpleNamespace(barrier=lambda: None)
    return SimpleNamespace(lightning_module=module, global_rank=1, world_size=2, strategy=strategy)


def test_the_maker_of_loaders_stays_as_long_as_the_model(front_end: EnergyFrontEnd) -> None:
    data = SpeechTextData(tokens_per_batch=100)
    data.trainer = trainer_of(front_end)
    maker = data.factory()
    assert data.factory() is maker
    assert (maker.options.rank, maker.options.world_size, maker.options.tokens_per_batch) == (1, 2, 100)
    data.connection.forget_trainer()
    data.trainer = trainer_of(other := EnergyFrontEnd(front_end.tokenizer, feature_dim=9))
    assert data.factory() is not maker
    assert data.factory().plain_reader.front_end is other


def test_a_model_connected_by_hand_is_not_the_trainers_to_replace(front_end: EnergyFrontEnd) -> None:
    data = SpeechTextData()
    data.connect(front_end)
    data.trainer = trainer_of(EnergyFrontEnd(front_end.tokenizer, feature_dim=9))
    data.connection.forget_trainer()
    assert data.factory().plain_reader.front_end is front_end


def test_probes_are_made_once_for_a_model(make_manifest: ManifestMaker, front_end: EnergyFrontEnd) -> None:
    data = SpeechTextData(probes={"speech": Probe(str(make_manifest(3)), "speech", 3)})
    data.connect(front_end)
    first = data.probe_batches("speech")
    assert data.probe_batches("speech") is first
    assert first[0].features.shape[1] == 2

    class Louder(EnergyFrontEnd):
        def extract(self, waveform: Any) -> Any:
            return 2 * super().extract(waveform)

    data.connect(Louder(front_end.tokenizer))
    assert data.probe_batches("speech")[0].features.sum() == pytest.approx(2 * float(first[0].features.sum()))


def test_a_run_that_continues_behind_an_epoch_begins_the_next_one() -> None:
    assert epoch_and_limit(None) == (0, 1.0)
    progress = SimpleNamespace(current=SimpleNamespace(processed=3))
    loop = SimpleNamespace(epoch_progress=progress)
    trainer: Any = SimpleNamespace(current_epoch=2, fit_loop=loop, limit_train_batches=5)
    assert epoch_and_limit(trainer) == (3, 5)
