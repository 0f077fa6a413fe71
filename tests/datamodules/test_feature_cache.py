from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from textkeep.datamodules import SpeechTextData
from textkeep.datamodules.batches.feature_cache import FeatureCache

from .conftest import EnergyFrontEnd, ManifestMaker


class Encoder:
    """Half as many frames as features, three numbers each; counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        self.calls += 1
        half = features[:, :, : features.shape[-1] // 2 * 2].unflatten(2, (-1, 2)).mean(dim=3)
        return torch.cat([half, half[:, :1]], dim=1).transpose(1, 2), lengths // 2


def make(
    path: Path, folder: Path, front_end: EnergyFrontEnd, encoder: Encoder | None, **arguments: Any
) -> SpeechTextData:
    data = SpeechTextData(train=str(path), feature_cache=str(folder), **arguments)
    data.connect(front_end, encoder)
    return data


@pytest.mark.parametrize("workers", [0, 2])
def test_frames_are_computed_once_and_equal_the_encoder(
    make_manifest: ManifestMaker, front_end: EnergyFrontEnd, tmp_path: Path, workers: int
) -> None:
    path, folder, encoder = make_manifest(6), tmp_path / "cache", Encoder()
    batches = list(make(path, folder, front_end, encoder, num_workers=workers).train_dataloader())
    assert encoder.calls == 6
    plain = SpeechTextData(train=str(path))
    plain.connect(front_end)
    for cached, raw in zip(batches, plain.train_dataloader(), strict=True):
        assert cached.encoded
        assert not raw.encoded
        assert cached.features.dtype == torch.float32
        assert torch.equal(cached.input_ids, raw.input_ids)
        assert torch.equal(cached.audio_mask, raw.audio_mask)
        for row in range(len(raw)):
            length = int(raw.feature_lengths[row])
            frames, _ = Encoder()(raw.features[row : row + 1, :, :length], torch.tensor([length]))
            assert int(cached.feature_lengths[row]) == length // 2
            assert torch.equal(cached.features[row, :, : length // 2], frames[0].T)
    list(make(path, folder, front_end, encoder, num_workers=workers).train_dataloader())
    assert encoder.calls == 6
    assert not list(folder.rglob("*.tmp"))


def test_key_is_encoder_and_content(make_manifest: ManifestMaker, front_end: EnergyFrontEnd, tmp_path: Path) -> None:
    path, encoder = make_manifest(2), Encoder()
    list(make(path, tmp_path / "cache", front_end, encoder).train_dataloader())
    other = EnergyFrontEnd(front_end.tokenizer, fingerprint="another encoder")
    list(make(path, tmp_path / "cache", other, encoder).train_dataloader())
    assert encoder.calls == 4
    first, second = (tmp_path / "clips" / f"questions-{i}.wav" for i in range(2))
    first.write_bytes(second.read_bytes())  # another content under the old name is known by its content
    list(make(path, tmp_path / "cache", front_end, encoder).train_dataloader())
    assert encoder.calls == 4


def test_damaged_entries_are_computed_again(
    make_manifest: ManifestMaker, front_end: EnergyFrontEnd, tmp_path: Path
) -> None:
    path, folder, encoder = make_manifest(3), tmp_path / "cache", Encoder()
    whole = [b.features for b in make(path, folder, front_end, encoder).train_dataloader()]
    truncated, foreign, emptied = sorted(folder.rglob("*.safetensors"))
    truncated.write_bytes(truncated.read_bytes()[:-5])
    foreign.write_bytes(b"not a safetensors file")
    emptied.write_bytes(b"")
    loader = make(path, folder, front_end, encoder).train_dataloader()
    assert encoder.calls == 6
    assert all(torch.equal(a, b.features) for a, b in zip(whole, loader, strict=True))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_entry_that_was_changed_is_never_trained_on(
    make_manifest: ManifestMaker, front_end: EnergyFrontEnd, tmp_path: Path, workers: int
) -> None:
    """One number of it, its length in the header, or all of it by another clip's: the file is as long as before."""
    path, folder, encoder = make_manifest(4), tmp_path / "cache", Encoder()
    whole = [b.features for b in make(path, folder, front_end, encoder).train_dataloader()]
    entries = sorted(folder.rglob("*.safetensors"))
    number, header, emptied, _ = (bytearray(entry.read_bytes()) for entry in entries)
    number[-2] ^= 1
    at = header.index(b'feature_length":"') + len(b'feature_length":"')
    header[at] = ord("9")
    emptied[-40:] = bytes(40)
    for entry, content in zip(entries, (number, header, emptied), strict=False):
        entry.write_bytes(content)
    if workers:  # a worker has no encoder: it names the entry, and the next start computes it
        with pytest.raises(ValueError, match=r"cache entry .* is missing or damaged; allowed: to start again"):
            list(make(path, folder, front_end, encoder, num_workers=workers).train_dataloader())
        for _ in range(2):
            with contextlib.suppress(ValueError):
                list(make(path, folder, front_end, encoder, num_workers=workers).train_dataloader())
    again = [b.features for b in make(path, folder, front_end, encoder, num_workers=workers).train_dataloader()]
    assert encoder.calls == 7
    assert all(torch.equal(a, b) for a, b in zip(whole, again, strict=True))


def test_an_entry_can_be_read_by_whom_the_umask_lets(
    make_manifest: ManifestMaker, front_end: EnergyFrontEnd, tmp_path: Path
) -> None:
    list(make(make_manifest(1), tmp_path / "cache", front_end, Encoder()).train_dataloader())
    (tmp_path / "plain").touch()
    (entry,) = (tmp_path / "cache").rglob("*.safetensors")
    assert entry.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_worker_never_runs_the_encoder(
    make_manifest: ManifestMaker, front_end: EnergyFrontEnd, tmp_path: Path
) -> None:
    loader = make(make_manifest(2), tmp_path / "cache", front_end, Encoder(), num_workers=1).train_dataloader()
    for entry in (tmp_path / "cache").rglob("*.safetensors"):
        entry.unlink()
    with pytest.raises(
        ValueError, match=r"questions\.jsonl:\d: cache entry .* is missing or damaged; allowed: to start"
    ):
        list(loader)
    assert FeatureCache("x", "y", Encoder()).__getstate__()["encode"] is None


def test_corrupt_clips_are_skipped(make_manifest: ManifestMaker, front_end: EnergyFrontEnd, tmp_path: Path) -> None:
    path = make_manifest(3)
    (tmp_path / "clips" / "questions-1.wav").write_bytes(b"none")
    with pytest.raises(ValueError, match=r"questions\.jsonl:2: .* cannot be decoded"):
        make(path, tmp_path / "cache", front_end, Encoder()).train_dataloader()
    data = make(path, tmp_path / "cache", front_end, Encoder(), on_bad_example="skip")
    with pytest.warns(UserWarning, match="cannot be decoded"):
        assert sum(len(batch) for batch in data.train_dataloader()) == 2
    assert data.skipped == {"corrupt clip": 1}
