from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from textkeep.foundation.ranks import Ranks
from textkeep.importance import Snapshot, probe
from textkeep.importance.masks import Selection, from_gaps, overlap, scope_groups, to_gaps, unpack

from .oracle import make_batch, tiny_llama


def select(tensors: list[torch.Tensor], groups: list[list[int]], **options) -> Selection:
    return Selection(lambda i: tensors[i], [t.numel() for t in tensors], groups, **options)


@pytest.mark.parametrize("k", [1, 7, 500, 2999])
def test_threshold_equals_sorting(k: int) -> None:
    torch.manual_seed(0)
    tensors = [torch.randn(40, 25).exp(), torch.zeros(50, 10), torch.rand(100, 15).mul(8).round() / 8]
    groups = [[0, 1, 2], [2]]
    for group, (threshold, ties) in zip(groups, select(tensors, groups).thresholds([k, min(k, 1500)]), strict=True):
        everything = torch.cat([tensors[i].flatten() for i in group]).sort(descending=True).values
        count = min(k, len(everything))
        assert threshold == everything[count - 1].item()
        assert ties == count - int((everything > threshold).sum())


@pytest.mark.parametrize("scope", ["matrix", "layer", "global"])
def test_masks_hold_exactly_the_fraction(scope: str) -> None:
    torch.manual_seed(1)
    tensors = [torch.rand(20, 30).mul(16).round(), torch.rand(10, 20), torch.rand(7, 9), torch.zeros(11, 10)]
    groups = scope_groups([0, 0, 1, 1], scope)
    packed = select(tensors, groups).masks(0.05)
    masks = {i: unpack(packed[i], tuple(t.shape)) for i, t in enumerate(tensors)}
    for group in groups:
        chosen = torch.cat([tensors[i][masks[i]] for i in group])
        others = torch.cat([tensors[i][~masks[i]] for i in group])
        assert len(chosen) == max(1, round(0.05 * sum(tensors[i].numel() for i in group)))
        assert chosen.min() >= others.max()


def test_ties_go_to_the_first_entries() -> None:
    tensors = [torch.ones(3, 5), torch.ones(2, 5), torch.full((1, 5), 2.0)]
    packed = select(tensors, [[0, 1, 2]]).masks(0.8)  # 24 of 30: five twos, then 19 of 25 ones
    flat = torch.cat([unpack(packed[i], tuple(t.shape)).flatten() for i, t in enumerate(tensors)])
    assert flat.nonzero().flatten().tolist() == [*range(19), *range(25, 30)]


class Half(Ranks):
    """One rank of three that only sees its own part; sums and gathers are made by the test."""

    def __init__(self, rank: int, seen: list[torch.Tensor]) -> None:
        self.size, self.rank, self._seen = 3, rank, seen

    def sum(self, tensor: torch.Tensor) -> None:
        self._seen.append(tensor.clone())
        raise InterruptedError


@pytest.mark.parametrize("gathered", [False, True])
def test_each_rank_goes_through_its_part_and_the_histograms_add_up(gathered: bool) -> None:
    torch.manual_seed(2)
    tensors = [torch.rand(20, 30) for _ in range(5)]
    asked: list[int] = []

    def entries(index: int) -> torch.Tensor:
        asked.append(index)
        return tensors[index]

    seen: list[torch.Tensor] = []
    for rank in range(3):
        with pytest.raises(InterruptedError):
            Selection(entries, [600] * 5, [[0, 1], [2, 3, 4]], Half(rank, seen), gathered).masks(0.1)
    assert asked == ([0, 1, 2, 3, 4] * 3 if gathered else [0, 3, 1, 4, 2])
    assert torch.stack(seen).sum((0, 2)).tolist() == [1200, 1800]


def test_overlap_by_popcount() -> None:
    generator = np.random.default_rng(0)
    first, second = generator.random(1001) < 0.3, generator.random(1001) < 0.2
    found = overlap(np.packbits(first), np.packbits(second))
    assert found == ((first & second).sum(), (first | second).sum())


@pytest.mark.parametrize("density", [0.0, 1e-5, 0.001, 0.01, 0.3, 1.0])
def test_gaps_are_the_mask(density: float) -> None:
    bits = np.random.default_rng(0).random(300_001) < density
    bits[-1] |= density == 1e-5  # gaps of one, two and three bytes
    coded = to_gaps(np.packbits(bits))
    assert np.array_equal(from_gaps(coded, bits.size), np.packbits(bits))
    if density == 0.01:
        assert 8 * coded.size / bits.size == pytest.approx(0.102, abs=0.005)


def test_masks_are_stored_in_the_shorter_form_and_format_1_is_read(tmp_path: Path) -> None:
    snapshot = probe(tiny_llama(), [make_batch()], "taylor", top_fraction=0.01)
    folder = snapshot.save(tmp_path / "new")
    loaded = Snapshot.load(folder)
    stored = load_file(folder / "masks.safetensors")
    assert all(key.startswith("gaps:taylor/") for key in stored)
    assert sum(v.size for v in stored.values()) < 0.2 * sum(bits.size for bits in snapshot.masks["taylor"])
    old = {f"taylor/{m.name}": bits for m, bits in zip(snapshot.table, snapshot.masks["taylor"], strict=True)}
    save_file(old, folder / "masks.safetensors")
    meta = (folder / "meta.json").read_text()
    (folder / "meta.json").write_text(meta.replace('"format": 2', '"format": 1'))
    for one in (loaded, Snapshot.load(folder)):
        assert all(np.array_equal(a, b) for a, b in zip(one.masks["taylor"], snapshot.masks["taylor"], strict=True))
    dense = probe(tiny_llama(), [make_batch()], "taylor", top_fraction=0.5).save(tmp_path / "dense")
    assert all(not key.startswith("gaps:") for key in load_file(dense / "masks.safetensors"))
