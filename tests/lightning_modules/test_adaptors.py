"""Adaptors: lengths, formulas, scale, files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from textkeep.lightning_modules import Adaptor, ConcatMLP, StackSwiGLU, StackTransformer
from textkeep.lightning_modules.adaptor_file import load_adaptor, save_adaptor

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


def test_file_round_trip_and_refusals(tmp_path: Path) -> None:
    adaptor, other = ConcatMLP(5, 16), ConcatMLP(5, 16)
    adaptor.build(6, 12)
    other.build(6, 12)
    path = tmp_path / "adaptor.safetensors"
    save_adaptor(path, adaptor, "whisper:x", "llm")
    load_adaptor(path, other, "whisper:x")
    torch.testing.assert_close(other.output.weight, adaptor.output.weight, rtol=1e-3, atol=1e-3)
    assert [p.name for p in tmp_path.iterdir()] == ["adaptor.safetensors"]
    with pytest.raises(ValueError, match="was made for encoder 'whisper:x', not 'whisper:y'"):
        load_adaptor(path, other, "whisper:y")
    wide = ConcatMLP(5, 20)
    wide.build(6, 12)
    with pytest.raises(ValueError, match=r"'input.weight' is \(16, 30\) there, \(20, 30\) here"):
        load_adaptor(path, wide, "whisper:x")
    with pytest.raises(FileNotFoundError, match="no file"):
        load_adaptor(tmp_path / "none", other, "whisper:x")
