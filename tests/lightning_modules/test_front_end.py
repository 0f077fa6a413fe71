"""What the data is told of a model."""

from __future__ import annotations

import pickle

import pytest

from textkeep.lightning_modules import SpeechLLM


def test_cached_frames_are_those_of_a_frozen_encoder(model: SpeechLLM) -> None:
    front_end = model.front_end
    assert front_end.fingerprint == model.encoder.fingerprint
    model.encoder.requires_grad_(True)
    with pytest.raises(ValueError, match=r"data\.feature_cache keeps the frames of a frozen encoder, and this one tra"):
        _ = front_end.fingerprint


def test_a_worker_gets_no_weights(model: SpeechLLM) -> None:
    sent = pickle.dumps(model.front_end)
    table = model.encoder.net.embed_positions.weight
    assert table.numpy(force=True).tobytes()[:400] not in sent
    copy = pickle.loads(sent)
    assert copy.num_positions(100) == model.front_end.num_positions(100)
    with pytest.raises(RuntimeError, match="knows no weights"):
        _ = copy.fingerprint
