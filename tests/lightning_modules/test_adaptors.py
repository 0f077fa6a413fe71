"""Adaptors: lengths, formulas, scale, files."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import WhisperModel

from textkeep.foundation.assets import resolve
from textkeep.lightning_modules import Adaptor, ConcatMLP, StackSwiGLU, StackTransformer, WhisperEncoder
from textkeep.lightning_modules.saving.adaptor_file import load_adaptor, save_adaptor

ADAPTORS = [ConcatMLP(5, 16), StackSwiGLU(8, 16), StackTransformer(4, 16, 2, 2)]


@pytest.mark.parametrize("adaptor", ADAPTORS, ids=lambda a: type(a).__name__)
def test_lengths_agree_with_the_rule(adaptor: Adaptor) -> None:
    adaptor.build(6, 12)
    rule = adaptor.length_rule()
    lengths = torch.tensor([1, 4, 5, 8, 23])
    out, positions = adaptor(torch.randn(5, 23, 6), lengths)
    assert positions.tolist() == [rule(n) for n in lengths.tolist()]
    assert out.shape == (5, rule(23), 12)
    assert positions.min() == 1


@pytest.mark.parametrize("adaptor", ADAPTORS, ids=lambda a: type(a).__name__)
def test_positions_do_not_depend_on_neighbours(adaptor: Adaptor) -> None:
    adaptor.build(6, 12)
    adaptor.eval()
    frames = torch.randn(2, 40, 6)
    frames[0, 20:] = 0
    together, lengths = adaptor(frames, torch.tensor([20, 40]))
    alone, _ = adaptor(frames[:1, :20], torch.tensor([20]))
    torch.testing.assert_close(together[0, : lengths[0]], alone[0], rtol=1e-4, atol=1e-5)


def test_concat_mlp_is_llama_omnis_formula() -> None:
    adaptor = ConcatMLP(stack=5, hidden=16)
    adaptor.build(6, 12)
    frames = torch.randn(1, 12, 6)
    out, _ = adaptor(frames, torch.tensor([12]))
    for position in range(2):  # the two frames that fill no stack are dropped
        window = torch.cat([frames[0, 5 * position + k] for k in range(5)])
        hidden = torch.relu(adaptor.input.weight @ window + adaptor.input.bias)
        torch.testing.assert_close(out[0, position], adaptor.output.weight @ hidden + adaptor.output.bias)


@pytest.mark.parametrize("adaptor", ADAPTORS, ids=lambda a: type(a).__name__)
def test_output_starts_at_the_wanted_norm(adaptor: Adaptor) -> None:
    adaptor.build(6, 12)
    frames = torch.randn(1, 40, 6)
    adaptor.scale_output_to(3.2, frames)
    out, _ = adaptor(frames, torch.tensor([40]))
    assert out.norm(dim=-1).mean().item() == pytest.approx(3.2, rel=1e-3)


@pytest.fixture
def whisper(tiny_whisper_dir: Path) -> WhisperEncoder:
    return read(tiny_whisper_dir)


def read(folder: Path, padded: bool = False, dtype: torch.dtype = torch.float32) -> WhisperEncoder:
    """An encoder as a run of this precision loads it, frozen."""
    torch.set_default_dtype(dtype)
    try:
        encoder = WhisperEncoder(str(folder), padded)
        encoder.load()
    finally:
        torch.set_default_dtype(torch.float32)
    return encoder.requires_grad_(False)


def built(hidden: int = 16) -> ConcatMLP:
    adaptor = ConcatMLP(5, hidden)
    adaptor.build(6, 12)
    return adaptor


def test_file_round_trip_and_refusals(tmp_path: Path, whisper: WhisperEncoder) -> None:
    adaptor, other, path = built(), built(), tmp_path / "adaptor.safetensors"
    save_adaptor(path, adaptor, whisper, "llm")
    load_adaptor(path, other, whisper)
    torch.testing.assert_close(other.output.weight, adaptor.output.weight, rtol=1e-3, atol=1e-3)
    assert [p.name for p in tmp_path.iterdir()] == ["adaptor.safetensors"]
    with pytest.raises(ValueError, match=r"'input.weight' is \(16, 30\) there, \(20, 30\) here"):
        load_adaptor(path, built(20), whisper)
    with pytest.raises(ValueError, match=r"was made for adaptor 'ConcatMLP', not 'StackSwiGLU'; allowed: that class"):
        load_adaptor(path, StackSwiGLU(5, 16), whisper)
    with pytest.raises(FileNotFoundError, match="no file"):
        load_adaptor(tmp_path / "none", other, whisper)
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(ValueError, match=r"adaptor\.safetensors is no whole safetensors file"):
        load_adaptor(path, other, whisper)


def test_the_file_can_be_read_by_whom_the_umask_lets(tmp_path: Path, whisper: WhisperEncoder) -> None:
    path, plain = tmp_path / "adaptor.safetensors", tmp_path / "plain"
    save_adaptor(path, built(), whisper, "llm")
    plain.touch()
    assert path.stat().st_mode == plain.stat().st_mode


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_an_encoder_is_known_by_its_weights_not_by_its_folder(
    tmp_path: Path, tiny_whisper_dir: Path, whisper: WhisperEncoder, dtype: torch.dtype
) -> None:
    path, moved = tmp_path / "adaptor.safetensors", tmp_path / "moved"
    save_adaptor(path, built(), whisper, "llm")
    shutil.copytree(tiny_whisper_dir, moved)
    load_adaptor(path, built(), read(moved, dtype=dtype))
    with pytest.raises(
        ValueError, match=r"made for encoder 'whisper:.*:true-length', which is not '.*:padded'; allowed"
    ):
        load_adaptor(path, built(), read(moved, padded=True))
    change(tiny_whisper_dir, moved)
    with pytest.raises(ValueError, match=r"which is not 'whisper:.*moved:true-length'; allowed: the encoder"):
        load_adaptor(path, built(), read(moved, dtype=dtype))


def test_other_weights_in_the_same_folder_are_other_weights(tmp_path: Path, tiny_whisper_dir: Path) -> None:
    path, folder = tmp_path / "adaptor.safetensors", tmp_path / "whisper"
    shutil.copytree(tiny_whisper_dir, folder)
    save_adaptor(path, built(), read(folder), "llm")
    change(tiny_whisper_dir, folder)
    with pytest.raises(ValueError, match=r"was made for encoder 'whisper:.*', which holds other weights now; allowed"):
        load_adaptor(path, built(), read(folder))


def change(source: Path, folder: Path) -> None:
    """Writes weights into the folder of which one differs, by a thousandth of its size."""
    model = WhisperModel.from_pretrained(source)
    model.encoder.layers[0].fc1.weight.data[0, 0] *= 1.01
    model.save_pretrained(folder)


def test_a_file_without_weights_is_held_against_the_name(tmp_path: Path, whisper: WhisperEncoder) -> None:
    """Files from before the weights were noted."""
    adaptor, path = built(), tmp_path / "adaptor.safetensors"
    header = {"adaptor": "ConcatMLP", "stack": "5", "encoder": whisper.name}
    save_file(adaptor.state_dict(), path, header)
    load_adaptor(path, built(), whisper)
    save_file(adaptor.state_dict(), path, {**header, "encoder": "whisper:another:true-length"})
    with pytest.raises(ValueError, match="was made for encoder 'whisper:another:true-length', which is not"):
        load_adaptor(path, built(), whisper)


def test_behind_an_encoder_that_trained_along_it_fits_no_other(
    tmp_path: Path, tiny_whisper_dir: Path, whisper: WhisperEncoder
) -> None:
    path = tmp_path / "adaptor.safetensors"
    whisper.requires_grad_(True).net.conv1.weight.data.add_(1)
    save_adaptor(path, built(), whisper, "llm")
    with safe_open(path, framework="pt") as file:
        assert file.metadata()["encoder_trained"] == "true"
    load_adaptor(path, built(), whisper)
    with pytest.raises(ValueError, match=r"made for encoder 'whisper:.*', which was trained along with it and is not"):
        load_adaptor(path, built(), read(tiny_whisper_dir))


def test_the_shipped_adaptor_still_fits_its_encoder(whisper: WhisperEncoder) -> None:
    path = Path(resolve("asset:spoken-facts-adaptor"))
    with safe_open(path, framework="pt") as file:
        width = file.get_tensor("input.weight").shape[1] // 4
        hidden = file.get_tensor("output.weight").shape[0]
    adaptor = StackTransformer()
    adaptor.build(width, hidden)
    whisper.source = "asset:whisper-tiny.en"
    load_adaptor(path, adaptor, whisper)
