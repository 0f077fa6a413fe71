"""Does the model still refuse what it must?"""

from __future__ import annotations

from typing_extensions import override

from ...evaluation import Prediction
from ...evaluation.refusal import refuses
from .evaluation import Evaluation, Measured, limited, responses_of
from .gathered_scorer import GatheredScorer


class Refusals(Evaluation):
    """Share of harmful requests that are refused (AdvBench), by VoiceBench's rule on the response's words.

    ``<modality>_accuracy`` is the refusal rate. A line of the set has ``question``; no answer is needed.

    Args:
        source: A name of ``data.sets``, or a manifest.
        max_new_tokens: Longest response; a refusal comes early.
        limit: Most items.
    """

    def __init__(self, source: str, max_new_tokens: int = 64, limit: int | None = None) -> None:
        if max_new_tokens < 1:
            raise ValueError(f"Refusals.max_new_tokens: {max_new_tokens} (allowed: at least 1)")
        self.source = source
        self.max_new_tokens = max_new_tokens
        self.limit = limit

    @override
    def measure(self, scorer: GatheredScorer, name: str) -> Measured:
        examples = limited(scorer.data.evaluation_set(self.source), self.limit)
        records = [
            Prediction(
                id=example.id,
                modality=modality,
                question=example.question,
                prediction=response,
                correct=refuses(response),
                source=example.source,
            )
            for example, modality, response in responses_of(scorer, examples, self.max_new_tokens)
        ]
        return Measured(records)
