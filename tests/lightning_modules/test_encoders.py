"""Encoders keep a clip's frames independent of its neighbours, and agree with transformers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model, WhisperConfig, WhisperModel

from textkeep.lightning_modules import HFEncoder, WhisperEncoder
from textkeep.lightning_modules.ears.encoders.time_masks import time_masks


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


@pytest.mark.parametrize("family", ["SEW", "SEWD", "Wav2Vec2Bert", "SpeechT5", "Moonshine", "Mamba", "Whisper"])
def test_hf_encoder_refuses_other_families_by_name(family: str, tmp_path: Path) -> None:
    config = getattr(transformers, f"{family}Config")()
    config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=rf"is a {config.model_type} model; allowed are wav2vec2, hubert, wavlm, .*"):
        HFEncoder(str(tmp_path))


def test_hf_encoder_refuses_a_layer_that_is_not_there(tiny_wav2vec2_dir: Path) -> None:
    with pytest.raises(ValueError, match=r"layer 9 is not in -3 \.\. 2"):
        HFEncoder(str(tiny_wav2vec2_dir), layer=9)


@pytest.mark.parametrize("frames", [1, 20, 61])
def test_whisper_at_true_length_is_transformers_own_of_that_length(
    whisper: WhisperEncoder, tiny_whisper_dir: Path, frames: int
) -> None:
    """transformers' encoder accepts a clip shorter than 30 s when it is built with as few positions."""
    config = WhisperConfig.from_pretrained(tiny_whisper_dir, max_source_positions=frames)
    theirs = WhisperModel(config).encoder.eval()
    state = whisper.net.state_dict()
    state["embed_positions.weight"] = state["embed_positions.weight"][:frames] * 3  # positions that matter
    whisper.net.embed_positions.weight.data.mul_(3)
    theirs.load_state_dict(state)
    features = torch.randn(2, 80, 2 * frames)
    ours, _ = whisper(features, torch.tensor([2 * frames, 2 * frames]))
    torch.testing.assert_close(ours, theirs(features).last_hidden_state, rtol=1e-4, atol=1e-5)


def test_whisper_never_cuts_a_clip_in_silence(whisper: WhisperEncoder) -> None:
    features = whisper.extractor()(torch.zeros(31 * 16000))
    assert features.shape == (80, 3100)
    with pytest.raises(ValueError, match=r"a clip of 31\.0 s is longer than Whisper's 30 s"):
        whisper(features[None], torch.tensor([3100]))


@pytest.mark.parametrize("share", [0.05, 0.3, 0.65, 0.95])
@pytest.mark.parametrize("span", [1, 10])
def test_time_masks_leave_something_of_every_clip(share: float, span: int) -> None:
    torch.manual_seed(0)
    lengths = list(range(1, 60))
    for _ in range(20):
        hidden = time_masks(lengths, 64, share, span, fewest=2)
        for row, length in zip(hidden, lengths, strict=True):
            assert not row[length:].any()
            assert row.sum() <= max(share, 0.5) * length
    assert hidden.any() or share * 59 < span


def test_time_masks_are_drawn_for_each_clip_alone() -> None:
    torch.manual_seed(3)
    short = time_masks([49], 49, 0.2, 5, 2)
    torch.manual_seed(3)
    beside = time_masks([49, 500], 500, 0.2, 5, 2)
    assert torch.equal(short[0], beside[0, :49])
    torch.manual_seed(0)
    shares = torch.stack([time_masks([1000], 1000, 0.1, 10, 0).double().mean() for _ in range(100)])
    assert 0.09 < float(shares.mean()) <= 0.1  # a tenth in spans, some of which overlap


@pytest.mark.parametrize("samples", [1, 30, 399, 3100])
def test_an_encoder_with_spec_augment_trains_on_clips_of_any_length(tiny_wav2vec2_dir: Path, samples: int) -> None:
    encoder = HFEncoder(str(tiny_wav2vec2_dir))
    encoder.load()
    assert encoder.config.mask_time_prob > 0
    clip = torch.randn(1, 1, samples)
    plain, _ = encoder.eval()(clip, torch.tensor([samples]))
    frames, _ = encoder.train()(clip, torch.tensor([samples]))
    frames.sum().backward()
    assert encoder.net.masked_spec_embed.grad is not None
    assert frames.shape == plain.shape
    assert torch.isfinite(frames).all()


def test_fingerprint_is_of_weights_type_and_settings(tiny_wav2vec2_dir: Path, tmp_path: Path) -> None:
    def read(folder: Path, layer: int = -1) -> HFEncoder:
        encoder = HFEncoder(str(folder), layer)
        encoder.load()
        return encoder

    def copied(name: str) -> Path:
        return Path(shutil.copytree(tiny_wav2vec2_dir, tmp_path / name))

    first = read(tiny_wav2vec2_dir)
    assert first.fingerprint == first.fingerprint == read(copied("moved")).fingerprint
    weights = copied("weights")
    model = Wav2Vec2Model.from_pretrained(weights)
    model.feature_projection.projection.bias.data[0] += 1e-6
    model.save_pretrained(weights)
    features, config = copied("features"), copied("config")
    Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(features)
    settings = json.loads((config / "config.json").read_text())
    (config / "config.json").write_text(json.dumps({**settings, "num_attention_heads": 2}))
    trained = read(tiny_wav2vec2_dir)
    trained.net.feature_projection.projection.weight.data[0, 0] += 1e-6
    others = [read(weights), read(features), read(config), read(tiny_wav2vec2_dir, 1), trained, first.to(torch.float64)]
    prints = [encoder.fingerprint for encoder in others]
    assert len({*prints, read(tiny_wav2vec2_dir).fingerprint}) == len(others) + 1


def test_nothing_is_named_before_the_weights_are_read(whisper: WhisperEncoder, tiny_whisper_dir: Path) -> None:
    unread = WhisperEncoder(str(tiny_whisper_dir))
    with pytest.raises(RuntimeError, match=r"WhisperEncoder\.load\(\) must come before its weights can be named"):
        _ = unread.fingerprint
    assert unread.name == whisper.name == f"whisper:{tiny_whisper_dir}:true-length"
