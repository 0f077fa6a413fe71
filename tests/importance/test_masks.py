from __future__ import annotations

import numpy as np
import pytest
import torch

from textkeep.importance.masks import kth_largest, overlap, scope_groups, top_masks, unpack


@pytest.mark.parametrize("k", [1, 7, 500, 2999])
def test_threshold_equals_sorting(k: int) -> None:
    torch.manual_seed(0)
    tensors = [torch.randn(40, 25).exp(), torch.zeros(50, 10), torch.rand(100, 15).mul(8).round() / 8]
    threshold, ties = kth_largest(lambda i: tensors[i], range(3), k)
    everything = torch.cat([t.flatten() for t in tensors]).sort(descending=True).values
    assert threshold == everything[k - 1].item()
    assert ties == k - int((everything > threshold).sum())


@pytest.mark.parametrize("scope", ["matrix", "layer", "global"])
def test_masks_hold_exactly_the_fraction(scope: str) -> None:
    torch.manual_seed(1)
    tensors = [torch.rand(20, 30).mul(16).round(), torch.rand(10, 20), torch.rand(7, 9), torch.zeros(11, 10)]
    groups = scope_groups([0, 0, 1, 1], scope)
    packed = top_masks(lambda i: tensors[i], groups, 0.05)
    masks = {i: unpack(packed[i], tuple(t.shape)) for i, t in enumerate(tensors)}
    for group in groups:
        chosen = torch.cat([tensors[i][masks[i]] for i in group])
        others = torch.cat([tensors[i][~masks[i]] for i in group])
        assert len(chosen) == max(1, round(0.05 * sum(tensors[i].numel() for i in group)))
        assert chosen.min() >= others.max()


def test_overlap_by_popcount() -> None:
    generator = np.random.default_rng(0)
    first, second = generator.random(1001) < 0.3, generator.random(1001) < 0.2
    found = overlap(np.packbits(first), np.packbits(second))
    assert found == ((first & second).sum(), (first | second).sum())
