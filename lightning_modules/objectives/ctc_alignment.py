"""Teaches the adaptor the words before the LLM is in the loop."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..contract import Batch, SpeechModel
from ..precision import at_least_float32
from .objective import Objective


class CTCAlignment(Objective):
    """CTC (Graves et al., 2006) of the transcript's tokens over the LLM's own input embeddings.

    Each adaptor position, brought to the embeddings' own norm, is scored against the frozen embedding of every
    candidate token (inner product, learned scale) and against a learned blank; CTC sums over the monotonic alignments.
    Where a word is spoken, the adaptor thus learns to emit a vector that points in the direction of the LLM's own
    embedding of that word. The LLM's layers are not run: a step costs a small fraction of one through the LLM.

    Args:
        weight: Factor in the total.
        candidates: Tokens that compete at each position: all of the batch's, topped up with random others to this
            number. ``0`` takes the whole vocabulary, which is exact but expensive on a CPU.
        scale: Of the inner product before the softmax, at the start; it is learned.
    """

    name = "ctc"
    runs_llm = False
    teaches_words = True
    norm: Tensor

    def __init__(self, weight: float = 1.0, candidates: int = 0, scale: float = 2.0) -> None:
        super().__init__(weight)
        if candidates < 0:
            raise ValueError(f"CTCAlignment: candidates is {candidates}, but must be 0 (all) or positive")
        self.candidates = candidates
        self.scale = scale

    def needs_whole(self) -> str | None:
        """Names nothing."""
        return None

    def build(self, model: SpeechModel) -> None:
        """Creates the blank's vector and bias."""
        table = model.llm.get_input_embeddings().weight
        norm = at_least_float32(table.detach()).norm(dim=-1).mean()
        self.register_buffer("norm", norm, persistent=False)
        self.blank = nn.Parameter(table.new_zeros(table.shape[1]))
        self.blank_bias = nn.Parameter(table.new_zeros(1))
        self.log_scale = nn.Parameter(table.new_full((1,), self.scale).log())

    def forward(self, model: SpeechModel, batch: Batch) -> tuple[Tensor, Tensor]:
        """Sums the loss over the batch's clips; the count is of transcript tokens. A text-only batch gives zero."""
        if batch.features.shape[0] == 0:
            zero = self.blank_bias.sum() * 0
            return zero, torch.zeros((), dtype=torch.long, device=zero.device)
        positions, lengths = model.speech_embeddings(batch)
        targets, target_lengths, vocabulary = self._targets(batch.transcripts, model)
        log_probs = self._log_probs(positions, vocabulary, model)
        loss = nn.functional.ctc_loss(
            log_probs.transpose(0, 1), targets, lengths, target_lengths, reduction="sum", zero_infinity=True
        )
        return loss, target_lengths.sum()

    def _log_probs(self, positions: Tensor, vocabulary: Tensor, model: SpeechModel) -> Tensor:
        """Turns (N, P, H) positions into (N, P, 1 + V) log-probabilities, the blank first."""
        table = model.llm.get_input_embeddings()(vocabulary).detach().to(positions.dtype)
        directions = at_least_float32(nn.functional.normalize(positions, dim=-1))
        positions = (directions * self.norm).to(positions.dtype)
        scores = self.log_scale.exp() * (positions @ table.T)
        blank = positions @ self.blank[:, None] + self.blank_bias
        return at_least_float32(torch.cat([blank, scores], dim=-1)).log_softmax(dim=-1)

    def _targets(self, transcripts: Tensor, model: SpeechModel) -> tuple[Tensor, Tensor, Tensor]:
        """Targets as indices into the candidates (1-based; 0 is the blank), their lengths, and the candidates."""
        real = transcripts >= 0
        size = model.llm.get_input_embeddings().weight.shape[0]
        if self.candidates == 0:
            vocabulary = torch.arange(size, device=transcripts.device)
        else:
            others = torch.randint(size, (self.candidates,), device=transcripts.device)
            vocabulary = torch.unique(torch.cat([transcripts[real], others]))
        targets = torch.searchsorted(vocabulary, transcripts.clamp(min=0)) + 1
        return torch.where(real, targets, 0), real.sum(dim=1), vocabulary

    @torch.no_grad()
    def transcribe(self, model: SpeechModel, batch: Batch) -> list[str]:
        """Decodes the batch's clips greedily by CTC, to show what the adaptor recognises."""
        positions, lengths = model.speech_embeddings(batch)
        vocabulary = torch.arange(model.llm.get_input_embeddings().weight.shape[0], device=positions.device)
        best = self._log_probs(positions, vocabulary, model).argmax(dim=-1).cpu()
        texts = []
        for row, length in zip(best, lengths.tolist(), strict=True):
            tokens = torch.unique_consecutive(row[:length])
            texts.append(str(model.tokenizer.decode((tokens[tokens > 0] - 1).tolist())))
        return texts
