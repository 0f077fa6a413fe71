"""A clip's frames and positions are the same alone, in a batch and from the cache: every encoder, every adaptor."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModel

from tests.support.tiny_encoders import FAMILIES, loaded, make_encoder, save_waveform_encoder
from textkeep.datamodules.batches.feature_cache import FeatureCache
from textkeep.datamodules.sources.example import AudioArray, Example
from textkeep.lightning_modules import Adaptor, ConcatMLP, HFEncoder, SpeechEncoder, StackSwiGLU, StackTransformer

SAMPLES = (2900, 1301, 3, 644, 2900)
"""Of the clips of a batch: the longest twice, one that fills no stack, one too short for a frame."""


def clips(encoder: SpeechEncoder) -> tuple[list[Tensor], Tensor, Tensor]:
    """Features (C, F) of clips of very different loudness, as a padded batch (N, C, F) and its lengths (N,)."""
    generator = torch.Generator().manual_seed(0)
    extract = encoder.extractor()
    features = [extract(torch.randn(n, generator=generator) * 10.0**-i).double() for i, n in enumerate(SAMPLES)]
    lengths = torch.tensor([f.shape[1] for f in features])
    batch = torch.zeros(len(features), features[0].shape[0], int(lengths.max()), dtype=torch.float64)
    for row, feature in zip(batch, features, strict=True):
        row[:, : feature.shape[1]] = feature
    return features, batch, lengths


@pytest.fixture(params=[*FAMILIES, "Whisper", "Whisper-padded"])
def encoder(request: pytest.FixtureRequest, tmp_path: Path, tiny_whisper_dir: Path) -> SpeechEncoder:
    return make_encoder(request.param, tmp_path, tiny_whisper_dir)


def adaptors(width: int) -> list[Adaptor]:
    made: list[Adaptor] = [ConcatMLP(5, 16), StackSwiGLU(8, 16), StackTransformer(4, 16, 2, 2)]
    for adaptor in made:
        adaptor.build(width, 12)
        adaptor.double().eval()
    return made


@torch.no_grad()
def test_alone_is_in_a_batch_is_cached(encoder: SpeechEncoder, tmp_path: Path) -> None:
    features, batch, lengths = clips(encoder)
    together, counts = encoder(batch, lengths)
    cache = FeatureCache(tmp_path / "cache", encoder.fingerprint, encoder)
    rule = encoder.length_rule()
    fitted = [(adaptor, *adaptor(together, counts)) for adaptor in adaptors(encoder.output_dim)]
    for row, feature in enumerate(features):
        size = feature.shape[1]
        alone, count = encoder(feature[None], torch.tensor([size]))
        assert int(count) == int(counts[row]) == rule(size)
        torch.testing.assert_close(together[row, : int(count)], alone[0], rtol=1e-12, atol=1e-12)
        assert not together[row, int(count) :].any()
        example = Example("a", "?", ("x",), "x", AudioArray(torch.tensor([float(row)]), 16000))
        for _ in range(2):  # computed, and read again
            cached, length = cache.frames(example, lambda _, feature=feature: feature)
            assert length == size
            torch.testing.assert_close(cached.T.double(), alone[0], rtol=1e-6, atol=1e-6)
        for adaptor, positions, numbers in fitted:
            own, number = adaptor(alone, count)
            assert int(number) == int(numbers[row]) == adaptor.length_rule()(int(count))
            torch.testing.assert_close(positions[row, : int(number)], own[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["WavLM-group", "Hubert-batch-norm", "Conformer-relative-group"])
def test_gradients_do_not_depend_on_neighbours(name: str, tmp_path: Path, tiny_whisper_dir: Path) -> None:
    encoder = make_encoder(name, tmp_path, tiny_whisper_dir)
    features, batch, lengths = clips(encoder)
    encoder(batch, lengths)[0].square().sum().backward()
    together = {n: p.grad for n, p in encoder.named_parameters() if p.grad is not None}
    encoder.zero_grad()
    for feature in features:
        encoder(feature[None], torch.tensor([feature.shape[1]]))[0].square().sum().backward()
    assert together
    for parameter_name, parameter in encoder.named_parameters():
        if parameter_name in together:
            torch.testing.assert_close(together[parameter_name], parameter.grad, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["Wav2Vec2-group", "Hubert-batch-norm", "Conformer-rotary-layer", "Data2VecAudio"])
def test_an_encoder_that_trains_gives_the_same_frames(name: str, tmp_path: Path) -> None:
    """With its dropouts and masks off: no LayerDrop, no batch's statistics; and every weight is in the graph."""
    family, settings = FAMILIES[name]
    off = ("hidden_dropout", "activation_dropout", "attention_dropout", "feat_proj_dropout", "conformer_conv_dropout")
    settings = {**settings, **dict.fromkeys(off, 0.0), "layerdrop": 0.9}
    folder = save_waveform_encoder(tmp_path / name, family, mask_time_prob=1e-9, mask_time_min_masks=0, **settings)
    encoder = loaded(HFEncoder(str(folder), layer=1))
    _, batch, lengths = clips(encoder)
    expected, _ = encoder(batch, lengths)
    before = {n: b.clone() for n, b in encoder.named_buffers()}
    encoder.train()
    for _ in range(5):  # LayerDrop would skip the first layer in nine of ten
        frames, _ = encoder(batch, lengths)
        torch.testing.assert_close(frames, expected, rtol=1e-12, atol=1e-12)
    frames.sum().backward()
    assert all(p.grad is not None for p in encoder.parameters())
    assert all(torch.equal(before[n], b) for n, b in encoder.named_buffers())


@torch.no_grad()
def test_a_copy_of_an_encoder_stands_alone_and_keeps_the_checkpoints_names(tmp_path: Path) -> None:
    folder = save_waveform_encoder(tmp_path, "Hubert", conv_pos_batch_norm=True)
    encoder = loaded(HFEncoder(str(folder)))
    _, batch, lengths = clips(encoder)
    copied = copy.deepcopy(encoder)
    expected, _ = encoder(batch, lengths)
    encoder(batch[:1], lengths[:1])
    torch.testing.assert_close(copied(batch, lengths)[0], expected)
    assert list(encoder.net.state_dict()) == list(AutoModel.from_pretrained(folder).state_dict())
