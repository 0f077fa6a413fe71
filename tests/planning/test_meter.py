"""Bytes by what they are for, and operators without data."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor

from textkeep.planning.meter import ACTIVATIONS, GRADIENTS, WEIGHTS, Meter
from textkeep.planning.shadow import Shadow


def test_the_peak_is_told_by_label_and_what_is_freed_is_not_counted() -> None:
    meter = Meter()
    with Shadow(meter).cast():
        with meter.counting(WEIGHTS):
            weight = torch.empty(10, 10)
        first = torch.empty(100)
        second = torch.empty(50)
        del first
        third = torch.empty(20)
    assert meter.live == {WEIGHTS: 400, ACTIVATIONS: 280}
    assert meter.peak == {WEIGHTS: 400, ACTIVATIONS: 600}
    meter.restart()
    assert meter.peak.total() == 680
    del weight, second, third
    assert meter.live.total() == 0


def test_a_view_is_counted_once() -> None:
    meter = Meter()
    with Shadow(meter).cast():
        whole = torch.empty(8, 8)
        part = whole[2:].t().reshape(-1)  # a copy: the view is not contiguous
        view = whole.view(-1)[3:]
    assert meter.live.total() == 4 * (64 + 48)
    del whole
    assert meter.live.total() == 4 * (64 + 48), "the view keeps it"
    del part, view
    assert meter.live.total() == 0


def test_gradients_are_labelled_when_they_are_there() -> None:
    meter = Meter()
    with Shadow(meter).cast():
        weight = torch.nn.Parameter(torch.empty(30, 5))
        frozen = torch.nn.Parameter(torch.empty(5), requires_grad=False)
        meter.watch_gradients([weight, frozen])
        (weight @ frozen).sum().backward()
    assert meter.live[GRADIENTS] == 600
    weight.grad = None
    assert meter.live[GRADIENTS] == 0


def test_whole_numbers_keep_their_values_and_fractions_have_none() -> None:
    with Shadow(Meter()).cast():
        lengths = torch.tensor([2, 4, 1])
        mask = torch.arange(5)[None, :] < lengths[:, None]
        values = torch.randn(3, 5)
        picked = values[mask]
        assert int(mask.sum()) == 7
        assert picked.shape == (7,)
        assert isinstance(picked, FakeTensor)
        assert torch.where(mask, values, 0.0).shape == (3, 5)
        assert float(values.sum()) == 1.0, "nobody knows it"
    assert not isinstance(mask, FakeTensor)


def test_nothing_is_computed() -> None:
    """A product of this size would take minutes, and its result 4 TB."""
    meter = Meter()
    with Shadow(meter).cast():
        large = torch.empty(2**20, 2**10)
        found = large @ large.t()
    assert found.shape == (2**20, 2**20)
    assert meter.live[ACTIVATIONS] == 4 * (2**30 + 2**40)


def test_what_depends_on_values_that_nobody_knows_is_refused() -> None:
    with Shadow(Meter()).cast(), pytest.raises(RuntimeError):
        torch.randn(4).nonzero()


def test_a_weight_is_counted_once_whenever_the_shadow_is_cast() -> None:
    meter = Meter()
    shadow = Shadow(meter)
    with shadow.cast():
        weight = torch.nn.Parameter(torch.empty(10, 10))
    with shadow.cast():
        turned = weight.t()
    assert meter.live.total() == 400
    assert turned.shape == (10, 10)
