from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from textkeep.evaluation.text_loss import text_losses

TEXTS = ["What is the capital of France?", "Paris.", "The capital of France is Paris. " * 90]


@pytest.fixture(scope="module")
def llm(tiny_llm_dir: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_llm_dir).eval()


def oracle(llm: Any, tokenizer: Any, text: str, window: int) -> tuple[float, int]:
    """One token after the other, in float64."""
    ids, total = tokenizer(text, add_special_tokens=False)["input_ids"], 0.0
    with torch.no_grad():
        for start in range(0, len(ids), window):
            piece = [tokenizer.bos_token_id, *ids[start : start + window]]
            logits = llm(torch.tensor([piece])).logits[0].double().log_softmax(-1)
            total -= sum(float(logits[i, piece[i + 1]]) for i in range(len(piece) - 1))
    return total, len(ids)


def test_losses_are_those_of_single_tokens(llm: Any, tiny_tokenizer: Any) -> None:
    window = llm.config.max_position_embeddings - 1
    assert len(tiny_tokenizer(TEXTS[2])["input_ids"]) > window  # scored in pieces
    for text, (total, tokens) in zip(TEXTS, text_losses(llm, tiny_tokenizer, TEXTS, batch_size=2), strict=True):
        expected, count = oracle(llm, tiny_tokenizer, text, window)
        assert tokens == count
        assert total == pytest.approx(expected, rel=1e-4)


def test_a_text_does_not_depend_on_its_neighbours(llm: Any, tiny_tokenizer: Any) -> None:
    together = text_losses(llm, tiny_tokenizer, TEXTS, batch_size=8)
    alone = [text_losses(llm, tiny_tokenizer, [text])[0] for text in TEXTS]
    assert [total for total, _ in together] == pytest.approx([total for total, _ in alone], rel=1e-4)
