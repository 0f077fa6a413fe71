"""A causal LM that cannot listen, with the interface of a speech LLM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ..datamodules import Batch
    from ..lightning_modules.llm.generation import Written

LONGEST_ANSWER = 32
"""Maximum new tokens of a text LLM, which has no setting of its own."""


@dataclass(frozen=True)
class TextFrontEnd:
    """Tokenizer of a text LLM with the interface of a speech front end (``datamodules.SpeechFrontEnd``).

    Attributes:
        tokenizer: Of the LLM.
        vocabulary: Rows of its embedding matrix.
    """

    tokenizer: PreTrainedTokenizerBase
    vocabulary: int | None = None
    sampling_rate: int = 16000
    feature_dim: int = 1
    positions_per_second: float = 12.5
    fingerprint: str = "text"
    text_twins: bool = False

    def extract(self, waveform: Tensor) -> Tensor:
        """Returns one empty frame; it never gets speech."""
        return torch.zeros(1, 1)

    def num_positions(self, feature_length: int) -> int:
        """Returns one position."""
        return 1


class TextLLM:
    """Answers and losses of a causal LM, under the names used in ``SpeechLLM``.

    Args:
        llm: A causal LM of transformers, in eval mode.
        tokenizer: Its tokenizer, with a pad token.

    Attributes:
        llm: As given.
        front_end: What the data needs from it.
    """

    def __init__(self, llm: Any, tokenizer: PreTrainedTokenizerBase) -> None:
        from ..lightning_modules.llm.packed_embeddings import accept_packed

        accept_packed(llm)
        self.llm = llm
        self.front_end: Any = TextFrontEnd(tokenizer, self.llm.get_input_embeddings().weight.shape[0])

    def write(self, batch: Batch, max_new_tokens: int | None = None) -> Written:
        """Generates greedy answers to a left-padded prompt batch, and reports which of them ended."""
        from ..lightning_modules.llm.generation import greedy_tokens
        from ..lightning_modules.llm.packed_embeddings import text_embeddings

        embeds = text_embeddings(self.llm, batch.input_ids)
        longest = max_new_tokens or LONGEST_ANSWER
        return greedy_tokens(self.llm, self.front_end.tokenizer, embeds, batch.attention_mask, longest, batch.end_id)

    def answer_losses(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Returns the summed answer loss (B,) in nats and the number of answer tokens (B,) of each row."""
        from ..lightning_modules.llm.packed_embeddings import text_embeddings
        from ..lightning_modules.losses.answer_loss import cross_entropies, predict_answers

        embeds = text_embeddings(self.llm, batch.input_ids)
        return cross_entropies(predict_answers(self.llm, embeds, batch.attention_mask, batch.labels))
