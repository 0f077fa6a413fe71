"""Encoders keep a clip's frames independent of its neighbours, and agree with transformers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model, WhisperModel

from textkeep.lightning_modules import HFEncoder, WhisperEncoder


@pytest.fixture
def whisper(tiny_whisper_dir: Path) -> WhisperEncoder:
    encoder = WhisperEncoder(str(tiny_whisper_dir))
    encoder.load()
    return encoder.eval()


@pytest.fixture(scope="module")
def tiny_wav2vec2_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wav2vec2")
    torch.manual_seed(0)
    config = Wav2Vec2Config(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        conv_dim=(16, 16, 16),
        conv_kernel=(10, 3, 2),
        conv_stride=(5, 2, 2),
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
    )
    Wav2Vec2Model(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
    return folder


def test_full_window_equals_transformers(whisper: WhisperEncoder, tiny_whisper_dir: Path) -> None:
    features = torch.randn(2, 80, 3000)
    theirs = WhisperModel.from_pretrained(tiny_whisper_dir).encoder.eval()(features).last_hidden_state
    ours, lengths = whisper(features, torch.tensor([3000, 3000]))
    assert lengths.tolist() == [1500, 1500]
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_frames_do_not_depend_on_neighbours(whisper: WhisperEncoder) -> None:
    short, long = torch.randn(80, 41), torch.randn(80, 120)
    batch = torch.zeros(2, 80, 120)
    batch[0, :, :41], batch[1] = short, long
    together, lengths = whisper(batch, torch.tensor([41, 120]))
    alone, _ = whisper(short[None], torch.tensor([41]))
    assert lengths.tolist() == [21, 60]
    torch.testing.assert_close(together[0, :21], alone[0], rtol=1e-4, atol=1e-5)
    assert together[0, 21:].abs().max() == 0


def test_extractor_keeps_true_length_and_pads_on_request(tiny_whisper_dir: Path) -> None:
    waveform = torch.randn(16000)
    assert WhisperEncoder(str(tiny_whisper_dir)).extractor()(waveform).shape == (80, 100)
    assert WhisperEncoder(str(tiny_whisper_dir), padded=True).extractor()(waveform).shape == (80, 3000)
    assert WhisperEncoder(str(tiny_whisper_dir)).extractor()(torch.randn(10)).shape[1] >= 1


def test_clip_over_thirty_seconds_is_refused(whisper: WhisperEncoder) -> None:
    with pytest.raises(ValueError, match="longer than Whisper's 30 s"):
        whisper(torch.zeros(1, 80, 3002), torch.tensor([3002]))


def test_hf_encoder_lengths_match_its_frames(tiny_wav2vec2_dir: Path) -> None:
    encoder = HFEncoder(str(tiny_wav2vec2_dir))
    encoder.load()
    encoder.eval()
    clips = [encoder.extractor()(torch.randn(n)) for n in (900, 400, 5)]
    assert clips[0].mean().abs() < 1e-5
    batch = torch.zeros(3, 1, 900)
    for index, clip in enumerate(clips):
        batch[index, :, : clip.shape[1]] = clip
    frames, lengths = encoder(batch, torch.tensor([900, 400, 5]))
    rule = encoder.length_rule()
    assert lengths.tolist() == [rule(900), rule(400), 1]
    alone, _ = encoder(clips[1][None], torch.tensor([400]))
    torch.testing.assert_close(frames[1, : lengths[1]], alone[0, : lengths[1]], rtol=1e-3, atol=1e-4)


def test_hf_encoder_refuses_other_models(tiny_llm_dir: Path, tiny_wav2vec2_dir: Path) -> None:
    with pytest.raises(ValueError, match="without a convolutional waveform front"):
        HFEncoder(str(tiny_llm_dir))
    with pytest.raises(ValueError, match=r"layer 9 is not in -3 \.\. 2"):
        HFEncoder(str(tiny_wav2vec2_dir), layer=9)
