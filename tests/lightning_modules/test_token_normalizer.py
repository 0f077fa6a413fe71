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
    normalizer, alone = TokenNormalizer(), _Strategy(0)
    for tokens in data:
        loss = (weight.double() * tokens).pow(2).sum()
        scaled = normalizer.scaled(loss, torch.tensor(len(tokens)), accumulate, alone)
        (scaled / accumulate).backward()  # as Lightning does
    normalizer.normalize([weight], alone)
    every = torch.cat(data)
    expected = torch.autograd.grad((w := weight.detach().double().requires_grad_()).mul(every).pow(2).mean(), w)[0]
    assert weight.grad is not None
    assert weight.grad.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_averaging_over_ranks_is_undone(accumulate: int) -> None:
    weight = torch.nn.Parameter(torch.tensor([1.0]))
    normalizer, two = TokenNormalizer(), _Strategy(7)
    (normalizer.scaled((weight * 5.0).sum(), torch.tensor(3), accumulate, two) / accumulate).backward()
    assert weight.grad is not None
    weight.grad.mul_(0.5)  # the other rank's loss was 0 over 7 tokens; DDP averages
    normalizer.normalize([weight], two)
    assert weight.grad.item() == pytest.approx(5.0 / 10)


def test_one_batch_a_step_is_divided_before_it_goes_backward() -> None:
    weight = torch.nn.Parameter(torch.tensor([0.1, 0.7]))
    normalizer, alone = TokenNormalizer(), _Strategy(0)
    count = torch.tensor(3)
    normalizer.scaled(weight.exp().sum(), count, 1, alone).backward()
    assert weight.grad is not None
    by_hand = torch.autograd.grad(weight.exp().sum() / count, weight)[0]
    before = weight.grad.clone()
    normalizer.normalize([weight], alone)
    assert torch.equal(weight.grad, by_hand)
    assert torch.equal(weight.grad, before)


def test_the_counts_stay_and_no_tokens_are_no_division_by_zero() -> None:
    class InPlace(_Strategy):
        def reduce(self, tensor: torch.Tensor, reduce_op: str) -> torch.Tensor:
            return tensor.add_(self.other)  # as Lightning's of several processes

    tokens = torch.tensor(0.0)
    assert float(TokenNormalizer().scaled(torch.tensor(4.0), tokens, 1, InPlace(2))) == 4.0
    assert float(tokens) == 0.0
    assert float(TokenNormalizer().scaled(torch.tensor(0.0), tokens, 1, _Strategy(0))) == 0.0
