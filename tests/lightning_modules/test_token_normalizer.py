"""One token weighs the same, whatever the batches and ranks."""

from __future__ import annotations

import pytest
import torch

from textkeep.lightning_modules.losses.token_normalizer import TokenNormalizer


class _Strategy:
    """Two ranks, seen from rank 0; the other rank's token count is known."""

    def __init__(self, other_tokens: int) -> None:
        self.world_size = 2 if other_tokens else 1
        self.other = other_tokens

    def reduce(self, tensor: torch.Tensor, reduce_op: str) -> torch.Tensor:
        assert reduce_op == "sum"
        return tensor + self.other


@pytest.mark.parametrize("accumulate", [1, 3])
def test_gradient_is_that_of_the_global_token_mean(accumulate: int) -> None:
    weight = torch.nn.Parameter(torch.tensor([2.0]))
    data = [torch.randn(n, dtype=torch.float64) for n in (2, 7, 4)][:accumulate]
    normalizer = TokenNormalizer()
    for tokens in data:
        loss = (weight.double() * tokens).pow(2).sum()
        (normalizer.scaled(loss, torch.tensor(len(tokens)), accumulate) / accumulate).backward()  # as Lightning does
    normalizer.normalize([weight], _Strategy(0))
    every = torch.cat(data)
    expected = torch.autograd.grad((w := weight.detach().double().requires_grad_()).mul(every).pow(2).mean(), w)[0]
    assert weight.grad is not None
    assert weight.grad.item() == pytest.approx(expected.item(), rel=1e-5)


def test_averaging_over_ranks_is_undone() -> None:
    weight = torch.nn.Parameter(torch.tensor([1.0]))
    normalizer = TokenNormalizer()
    normalizer.scaled((weight * 5.0).sum(), torch.tensor(3), 1).backward()
    assert weight.grad is not None
    weight.grad.mul_(0.5)  # the other rank's loss was 0 over 7 tokens; DDP averages
    normalizer.normalize([weight], _Strategy(7))
    assert weight.grad.item() == pytest.approx(5.0 / 10)
