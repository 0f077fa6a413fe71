"""Losses and scores that are infinite or not a number are refused: as a profile they would be "no shift"."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from textkeep.importance import NotFiniteError, compare, probe

from .oracle import make_batch, tiny_llama


def test_a_model_without_a_finite_loss_is_not_measured() -> None:
    model = tiny_llama()
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[0, 0] = float("nan")
    with pytest.raises(NotFiniteError, match=r"probe 'speech': the loss of example 3-0 is nan: the weights"):
        probe(model, [make_batch(2, seed=3)], "taylor", name="speech")
    with pytest.raises(NotFiniteError, match="loss of example"):
        probe(model, [make_batch(2, seed=3)], "magnitude")
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


@pytest.mark.parametrize("estimator", ["taylor", "fisher", "signed_taylor", "taylor_batch", "fisher_sampled"])
def test_a_gradient_that_overflows_is_told_by_its_matrix(estimator: str) -> None:
    model = tiny_llama()

    def spoil(module: torch.nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        return output + 0.0 * (output - output.detach()).abs().sqrt()  # zero, with a slope of 0 * inf

    model.model.layers[1].mlp.down_proj.register_forward_hook(spoil)
    first = r"signed_taylor \(self-test\)" if estimator == "taylor_batch" else estimator
    told = rf"{first} of model\.layers\.0\.self_attn\.q_proj\.weight.* is nan, as of \d+ of \d+ scores: the compute"
    with pytest.raises(NotFiniteError, match=told):
        probe(model, [make_batch(2)], estimator)


def test_snapshots_of_an_earlier_version_that_hold_none_are_not_compared() -> None:
    before, after = (probe(tiny_llama(), [make_batch(3)], "taylor", step=step) for step in (0, 9))
    after.examples["taylor"][1, 2] = np.nan
    with pytest.raises(ValueError, match="step 9 has scores of 'taylor' that are not finite"):
        compare(before, after, "taylor")
