"""Text benchmarks on the tuned LLM as it stands."""

from __future__ import annotations

from collections.abc import Sequence

from typing_extensions import override

from ...evaluation import Prediction, RetentionSummary
from ...evaluation.text_benchmarks import BenchmarkScores, run_benchmarks
from .evaluation import Evaluation, Measured
from .gathered_scorer import GatheredScorer


class TextBenchmarks(Evaluation):
    """Tasks of lm-eval on the LLM inside the speech LLM, adapters included, without an export.

    Rank zero computes while the others wait. Needs the extra ``lm-eval``. Data that a task takes from the Hugging Face
    hub are downloaded unless they are in the cache or ``HF_HUB_OFFLINE=1``; ``textkeep_general`` needs no network.

    Args:
        tasks: Names of tasks or groups, or task YAML files.
        limit: Most items a task.
        num_fewshot: Examples in the prompt; None takes the task's own number.
        batch_size: Sequences at once.
        apply_chat_template: Put the prompts into the model's chat format.
    """

    def __init__(
        self,
        tasks: list[str],
        limit: int | None = None,
        num_fewshot: int | None = None,
        batch_size: int = 8,
        apply_chat_template: bool = False,
    ) -> None:
        if not tasks:
            raise ValueError("TextBenchmarks.tasks: none (allowed: tasks of lm-eval, such as textkeep_general)")
        self.tasks = tasks
        self.limit = limit
        self.num_fewshot = num_fewshot
        self.batch_size = batch_size
        self.apply_chat_template = apply_chat_template

    @override
    def measure(self, scorer: GatheredScorer, name: str) -> Measured:
        scores = BenchmarkScores()
        with scorer.giving_way(scorer.model.llm):
            if scorer.rank == 0:
                scores = self._scores(scorer)
        limits = scores.intervals()
        return Measured(scores.records, {key: (value, *limits[key]) for key, value in scores.values.items()})

    def _scores(self, scorer: GatheredScorer) -> BenchmarkScores:
        with scorer.reading_text() as llm, scorer.model.writing_greedily(scorer.data.end_id):
            return run_benchmarks(
                llm,
                scorer.model.tokenizer,
                self.tasks,
                self.limit,
                self.num_fewshot,
                self.batch_size,
                self.apply_chat_template,
            )

    @override
    def summarize(self, records: Sequence[Prediction], baseline: Sequence[Prediction]) -> RetentionSummary:
        """Returns lm-eval's own figures; over all items of all tasks, only the change since step 0 is added."""
        whole = super().summarize(records, baseline)
        summary = RetentionSummary(items=len(records))
        for key in ("text_accuracy_change", "text_accuracy_kept"):
            if key in whole.values:
                summary.values[key], summary.intervals[key] = whole.values[key], whole.intervals[key]
        return summary
