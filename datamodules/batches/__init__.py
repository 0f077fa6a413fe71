"""From examples to batches: prompts, features, collation, sampling, loading."""

from __future__ import annotations

from ...foundation.lazy_exports import from_modules

_PUBLIC = {
    "Batch": "batch",
    "ChatPrompt": "prompts",
    "Collator": "collator",
    "RowReader": "rows",
    "SpeechFrontEnd": "front_end",
    "TokenBudgetSampler": "token_budget_sampler",
    "View": "rows",
}

__all__ = sorted(_PUBLIC)
__getattr__ = from_modules(__name__, _PUBLIC)
