"""From examples to batches: prompts, features, collation, sampling, loading."""

from .batch import Batch
from .collator import Collator
from .front_end import SpeechFrontEnd
from .prompts import ChatPrompt
from .rows import RowReader, View
from .token_budget_sampler import TokenBudgetSampler

__all__ = ["Batch", "ChatPrompt", "Collator", "RowReader", "SpeechFrontEnd", "TokenBudgetSampler", "View"]
