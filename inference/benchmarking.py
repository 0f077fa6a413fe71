"""Text benchmarks of a model in use: what it is for text, asked greedily."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import torch

from ..datamodules import ChatPrompt
from ..evaluation.text_benchmarks import BenchmarkScores, run_benchmarks
from ..lightning_modules.llm.generation import greedily, stop_ids
from .loaded_model import LoadedModel


def benchmark(
    model: LoadedModel,
    tasks: Sequence[str],
    limit: int | None = None,
    num_fewshot: int | None = None,
    batch_size: int = 8,
    chat: bool = False,
) -> BenchmarkScores:
    """Runs tasks of lm-eval on what the model is for text: behind a gate, the LLM without its adapters.

    Args:
        model: Loaded.
        tasks: Names of lm-eval, or YAML files.
        limit: Most items a task.
        num_fewshot: Examples in the prompt; None takes the task's own number.
        batch_size: Sequences at once.
        chat: Put the prompts into the model's chat template.

    Raises:
        ValueError: If a task is unknown or its data cannot be loaded.
        ImportError: If lm-eval is not installed.
    """
    tuning, tokenizer = getattr(model.speech_llm, "tuning", None), model.front_end.tokenizer
    silent = torch.zeros(1, 1, dtype=torch.bool)
    end_id = ChatPrompt(tokenizer, **model.origin.prompts).end_id if tokenizer.chat_template else None
    greedy = greedily(model.llm, tokenizer, stop_ids(model.llm, tokenizer, end_id))
    with torch.no_grad(), greedy, nullcontext() if tuning is None else tuning.reading(silent):
        return run_benchmarks(model.llm, tokenizer, tasks, limit, num_fewshot, batch_size, chat)
