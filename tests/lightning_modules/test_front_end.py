"""What the data is told of a model."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from textkeep.lightning_modules import ConcatMLP, FullFineTuning, SpeechLLM, WhisperEncoder
from textkeep.lightning_modules.saving.export_folder import load_export, write_export


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


def test_clips_for_the_cache_go_where_the_encoder_is(model: SpeechLLM) -> None:
    class Elsewhere(nn.Linear):
        def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
            return features, lengths

    model.encoder = Elsewhere(1, 1, device="meta")  # type: ignore[assignment]
    features, lengths = model.encode_speech(torch.zeros(1, 80, 4), torch.tensor([4]))
    assert features.is_meta
    assert lengths.is_meta


def test_an_export_with_an_encoder_that_trained_is_read_again(
    tiny_llm_dir: Path, tiny_whisper_dir: Path, tmp_path: Path
) -> None:
    encoder, adaptor = WhisperEncoder(str(tiny_whisper_dir)), ConcatMLP(5, 16)
    model = SpeechLLM(str(tiny_llm_dir), encoder, adaptor, FullFineTuning(train_encoder=True))
    model.configure_model()
    with torch.no_grad():
        model.encoder.net.conv1.weight.add_(0.1)
    settings = {
        "encoder": {
            "class_path": "textkeep.lightning_modules.WhisperEncoder",
            "init_args": {"source": str(tiny_whisper_dir)},
        },
        "adaptor": {
            "class_path": "textkeep.lightning_modules.ConcatMLP",
            "init_args": {"stack": 5, "hidden": 16},
        },
        "tuning": None,
    }
    write_export(tmp_path / "export", model, settings, {}, {})
    again = load_export(SpeechLLM, tmp_path / "export")
    assert again.encoder.fingerprint == model.encoder.fingerprint
    assert torch.equal(again.adaptor.output.weight, model.adaptor.output.weight)
