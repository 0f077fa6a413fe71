"""The slow truth: one example at a time, unpadded, plain autograd, float64."""

from __future__ import annotations

from collections.abc import Iterator
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from textkeep.importance import ESTIMATORS, Snapshot, probe
from textkeep.importance.losses import AnswerLoss

ALL = tuple(name for name, spec in ESTIMATORS.items() if not spec.ablated)  # test_ablation has its own oracle
MAPPED = tuple(name for name, spec in ESTIMATORS.items() if spec.maps)


def tiny_llama(tied: bool = False, layers: int = 2, seed: int = 0, **extra) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    sizes = {"vocab_size": 61, "hidden_size": 24, "intermediate_size": 40, "initializer_range": 0.15}
    config = LlamaConfig(
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=tied,
        pad_token_id=0,
        **{**sizes, **extra},
    )
    return LlamaForCausalLM(config).double()


def make_batch(rows: int = 4, length: int = 11, seed: int = 0, padded: bool = False, left: bool = False) -> dict:
    """Random tokens; the second half is the answer. ``padded``: row i has i positions less, taken from the end."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, 61, (rows, length), generator=generator)
    labels = ids.clone()
    labels[:, : length // 2] = -100
    mask = torch.ones_like(ids)
    if padded:
        for row in range(rows):
            stop = length - row
            ids[row, stop:], labels[row, stop:], mask[row, stop:] = 0, -100, 0
    labels[0, length // 2] = -100  # not all examples have the same number of answer tokens
    if left:
        ids, labels, mask = (
            torch.stack([one.roll(row) for row, one in enumerate(tensor)]) for tensor in (ids, labels, mask)
        )
    return {"input_ids": ids, "attention_mask": mask, "labels": labels, "ids": [f"{seed}-{i}" for i in range(rows)]}


def example_loss(model: nn.Module, batch: dict, row: int) -> Tensor:
    """Mean cross-entropy over the answer tokens of one example, unpadded and alone, at the positions it had."""
    real = batch["attention_mask"][row].bool()
    ids, labels, positions = batch["input_ids"][row][real], batch["labels"][row][real], real.nonzero().T
    logits = model(input_ids=ids[None], position_ids=positions, use_cache=False).logits[0, :-1]
    return F.cross_entropy(logits, labels[1:], ignore_index=-100)


def per_example_gradients(model: nn.Module, batches: list[dict]) -> list[dict[str, Tensor]]:
    """Parameter name -> gradient, for each example in turn."""
    model.eval()
    gradients = []
    for batch in batches:
        for row in range(len(batch["labels"])):
            model.zero_grad(set_to_none=True)
            example_loss(model, batch, row).backward()
            gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    model.zero_grad(set_to_none=True)
    return gradients


Truth = dict[str, dict[str, Tensor]]  # parameter name -> estimator -> scores (N, O, I) of N examples, or (O, I)


def truth(model: nn.Module, batches: list[dict], drawn: list[list[dict]] | None = None) -> Truth:
    """Every estimator's score of every weight, by loops.

    Args:
        model: With the weights to score, float64.
        batches: The data.
        drawn: For ``fisher_sampled``: the data once for each draw, with drawn labels (see :func:`recorded_probe`).
    """
    gradients = per_example_gradients(model, batches)
    draws = [per_example_gradients(model, labelled) for labelled in drawn or []]
    norms = input_norms(model, batches)
    scores: Truth = {}
    for name, parameter in model.named_parameters():
        if name not in gradients[0]:
            continue
        weight = parameter.detach()
        g = torch.stack([example[name] for example in gradients])
        scores[name] = {
            "taylor": (weight * g).abs(),
            "fisher": g.square(),
            "signed_taylor": weight * g,
            "taylor_batch": (weight * g.mean(0)).abs(),
            "magnitude": weight.abs(),
        }
        if name in norms:
            scores[name]["wanda"] = weight.abs() * norms[name]
        if draws:
            sampled = [torch.stack([example[name] for example in draw]).square() for draw in draws]
            scores[name]["fisher_sampled"] = torch.stack(sampled).mean(0)
    return scores


@torch.no_grad()
def input_norms(model: nn.Module, batches: list[dict]) -> dict[str, Tensor]:
    """Weight name of each Linear -> root of the mean over examples of ``sum_t a_t^2`` (I,)."""
    squares: dict[str, Tensor] = {}

    def listen(name: str):
        def hook(_, args: tuple) -> None:
            squares[name] = squares.get(name, 0) + args[0].flatten(0, -2).square().sum(0)

        return hook

    linear = [(f"{n}.weight", m) for n, m in model.named_modules() if isinstance(m, nn.Linear)]
    handles = [module.register_forward_pre_hook(listen(name)) for name, module in linear]
    rows = [(batch, row) for batch in batches for row in range(len(batch["labels"]))]
    for batch, row in rows:
        example_loss(model, batch, row)
    for handle in handles:
        handle.remove()
    return {name: (total / len(rows)).sqrt() for name, total in squares.items()}


def recorded_probe(model: nn.Module, batches: list[dict], draws: int, **options) -> tuple[Snapshot, list[list[dict]]]:
    """A probe with ``fisher_sampled``, and the data with the labels that it drew, once for each draw."""
    calls: list[Tensor] = []
    draw = AnswerLoss.sampled_targets

    def listening(logits: Tensor, targets: Tensor, seeds: list[int]) -> Tensor:
        calls.append(draw(logits, targets, seeds))
        return calls[-1]

    with mock.patch.object(AnswerLoss, "sampled_targets", staticmethod(listening)):
        snapshot = probe(model, batches, draws=draws, **options)
    drawn: list[list[dict]] = [[] for _ in range(draws)]
    for call, sampled in enumerate(calls):
        batch = batches[call // draws]
        labels = batch["labels"].clone()
        for row in range(len(labels)):
            answer = labels[row] != -100
            labels[row, answer] = sampled[row][sampled[row] != -100]
        drawn[call % draws].append({**batch, "labels": labels})
    return snapshot, drawn


def relative(found, expected, size: float | None = None) -> float:
    """Largest difference over the largest expected value (or ``size``)."""
    found, expected = np.asarray(found, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    assert found.shape == expected.shape, (found.shape, expected.shape)
    return float(np.abs(found - expected).max() / max(np.abs(expected).max() if size is None else size, 1e-300))


def error(snapshot: Snapshot, expected: Truth, estimator: str) -> float:
    """Largest relative error of all that a snapshot holds: totals, examples, rows, columns, heads, single weights."""
    return max(e for i in range(len(snapshot.table)) for e in _errors(snapshot, i, expected, estimator))


def _errors(snapshot: Snapshot, index: int, expected: Truth, estimator: str) -> Iterator[float]:
    matrix, spec = snapshot.table[index], ESTIMATORS[estimator]
    entries = expected[matrix.name][estimator]
    entries = entries.reshape(-1, *matrix.shape)  # (N, O, I), or (1, O, I) of a score without examples
    rows, columns, totals = entries.sum(2), entries.sum(1), entries.sum((1, 2))
    size = None
    if spec.signed:  # a signed sum cancels: its size is the sum of the absolute terms
        size = float(entries.abs().sum((1, 2)).max())
        rows, columns = rows.abs(), columns.abs()
        if snapshot.heads[index].size:
            side = (entries.sum(1) if matrix.kind == "o" else entries.sum(2)).unflatten(1, (-1, matrix.head_dim))
            yield relative(snapshot.heads[index], side.sum(2).abs().mean(0), size)
    if spec.per_example:
        yield relative(snapshot.examples[estimator][:, index], totals, size)
    yield relative(snapshot.scores(estimator)[index], totals.abs().mean(), size)
    if snapshot.rows:
        yield relative(snapshot.rows[estimator][index], rows.mean(0))
        yield relative(snapshot.columns[estimator][index], columns.mean(0))
    if estimator in snapshot.maps:
        yield relative(snapshot.maps[estimator][index], entries.mean(0))
