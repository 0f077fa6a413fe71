"""CTC by its definition: a sum over all alignments, and what an alignment says."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from tests.support.speech_batches import make_batch
from textkeep.datamodules import Batch
from textkeep.lightning_modules import CTCAlignment, SpeechLLM


def said(alignment: Sequence[int]) -> list[int]:
    """What is left of an alignment: repeats are one, blanks (0) nothing (Graves et al., 2006)."""
    return [token for token, _ in itertools.groupby(alignment) if token]


def aligned(objective: CTCAlignment, scores: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the objective see these log-probabilities (N, P, 1 + V) whatever it hears."""
    monkeypatch.setattr(objective, "_log_probs", lambda positions, vocabulary, model: scores.log_softmax(-1))


@pytest.mark.parametrize("target", [[2, 1], [1, 1], [2]])
def test_loss_sums_over_every_alignment_that_says_the_target(
    model: SpeechLLM, monkeypatch: pytest.MonkeyPatch, target: list[int]
) -> None:
    objective = CTCAlignment()
    objective.build(model)
    batch = make_batch(model.eval(), [40])  # 20 frames of Whisper, 4 positions
    batch.transcripts = torch.tensor(target)[None] - 1
    scores = torch.randn(1, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    aligned(objective, scores, monkeypatch)
    loss, _ = objective(model, batch)
    probabilities = scores[0].softmax(-1)
    total = sum(
        float(torch.stack([probabilities[p, token] for p, token in enumerate(alignment)]).prod())
        for alignment in itertools.product(range(3), repeat=4)
        if said(alignment) == target
    )
    assert float(loss) == pytest.approx(-torch.tensor(total).log().item(), rel=1e-5)


def by_torch(objective: CTCAlignment, model: SpeechLLM, batch: Batch, vocabulary: list[int]) -> Tensor:
    """Gives the summed loss where these tokens compete, clip by clip, in float64."""
    table = model.llm.get_input_embeddings().weight.double()
    heard, lengths = model.speech_embeddings(batch)
    losses = []
    for clip, length, transcript in zip(heard.double(), lengths.tolist(), batch.transcripts, strict=True):
        loudness = table.square().sum(dim=1).sqrt().mean()
        real = clip[:length]
        real = real / real.square().sum(dim=1, keepdim=True).sqrt() * loudness
        blank = real @ objective.blank.double() + objective.blank_bias.double()
        scores = torch.stack([blank, *(objective.scale * real @ table[token] for token in vocabulary)], dim=1)
        target = torch.tensor([1 + vocabulary.index(token) for token in transcript.tolist() if token >= 0])
        sizes = torch.tensor([length]), torch.tensor([len(target)])
        log_probs = scores.log_softmax(dim=1)[:, None]
        losses.append(torch.nn.functional.ctc_loss(log_probs, target[None], *sizes, reduction="sum"))
    return torch.stack(losses).sum()


@pytest.mark.parametrize("candidates", [0, 1, 50])
def test_only_the_candidates_compete(model: SpeechLLM, candidates: int) -> None:
    objective = CTCAlignment(candidates=candidates, scale=3.0)
    objective.build(model)
    with torch.no_grad():
        objective.blank.copy_(torch.randn(32, generator=torch.Generator().manual_seed(1)))
        objective.blank_bias.fill_(0.5)
    batch = make_batch(model.eval(), [60, None, 90])
    said_in_it = [model.tokenizer.encode(question) for question in ("1?", "123?")]
    assert [row[row >= 0].tolist() for row in batch.transcripts] == said_in_it
    rows = model.llm.get_input_embeddings().weight.shape[0]
    torch.manual_seed(7)
    others = torch.randint(rows, (candidates,)).tolist() if candidates else range(rows)
    vocabulary = sorted({*others, *itertools.chain(*said_in_it)})
    torch.manual_seed(7)
    loss, count = objective(model, batch)
    assert count.item() == 6
    expected = by_torch(objective, model, batch, vocabulary)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    parameters = [*model.adaptor.parameters(), objective.blank, objective.blank_bias]
    for found, wanted in zip(*(torch.autograd.grad(each, parameters) for each in (loss, expected)), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)


def test_transcript_collapses_repeats_drops_blanks_and_ends_with_the_clip(
    model: SpeechLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective = CTCAlignment()
    objective.build(model)
    batch = make_batch(model.eval(), [80, 40])  # 8 and 4 positions
    size = len(model.tokenizer)
    best = [[40, 40, 0, 40, 0, 50, 50, 60], [0, 70, 70, 0, 80, 80, 80, 80]]
    scores = torch.nn.functional.one_hot(torch.tensor(best), 1 + size).float() * 9
    aligned(objective, scores, monkeypatch)
    texts = objective.transcribe(model, batch)
    assert texts == [model.tokenizer.decode([39, 39, 49, 59]), model.tokenizer.decode([69])]
    assert [said(row[:length]) for row, length in zip(best, (8, 4), strict=True)] == [[40, 40, 50, 60], [70]]
