"""CTC by its definition: a sum over all alignments, and what an alignment says."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
import torch

from tests.support.speech_batches import make_batch
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
