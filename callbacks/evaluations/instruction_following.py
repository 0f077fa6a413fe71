"""Does the model still follow instructions?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from typing_extensions import override

from ...evaluation import Prediction, RetentionSummary, share_interval, wilson_interval
from ...evaluation.instructions import check_instructions, require_sentence_data
from ...foundation.json_lines import parse_json
from .evaluation import Evaluation, Measured, limited, responses_of
from .gathered_scorer import GatheredScorer


class InstructionFollowing(Evaluation):
    """IFEval (arXiv 2311.07911) by lm-eval's own checks, written and, where the set has clips, spoken (VoiceBench).

    A line of the set has ``question`` (the prompt), ``instruction_id_list`` and ``kwargs``, as ``google/IFEval`` and
    VoiceBench's ``ifeval`` have them. An item is right when its response follows all its instructions, strictly.
    Needs the extra ``lm-eval``.

    Args:
        source: A name of ``data.sets``, or a manifest.
        max_new_tokens: Longest response; lm-eval takes 1280.
        limit: Most items.
    """

    def __init__(self, source: str, max_new_tokens: int = 1280, limit: int | None = None) -> None:
        if max_new_tokens < 1:
            raise ValueError(f"InstructionFollowing.max_new_tokens: {max_new_tokens} (allowed: at least 1)")
        self.source = source
        self.max_new_tokens = max_new_tokens
        self.limit = limit

    @override
    def measure(self, scorer: GatheredScorer, name: str) -> Measured:
        examples = limited(scorer.data.evaluation_set(self.source), self.limit)
        instructions = {example.id: _instructions(example) for example in examples}
        require_sentence_data([identity for ids, _ in instructions.values() for identity in ids])
        records = [
            _record(example, modality, response, *instructions[example.id])
            for example, modality, response in responses_of(scorer, examples, self.max_new_tokens)
        ]
        return Measured(records)

    @override
    def summarize(self, records: Sequence[Prediction], baseline: Sequence[Prediction]) -> RetentionSummary:
        summary = super().summarize(records, baseline)
        for modality in dict.fromkeys(record.modality for record in records):
            counts = [record.figures for record in records if record.modality == modality]
            loose = sum(figures["loose"] == figures["instructions"] for figures in counts)
            summary.add(f"{modality}_loose_accuracy", wilson_interval(loose, len(counts)))
            for kind in ("strict", "loose"):
                share = share_interval([f[kind] for f in counts], [f["instructions"] for f in counts])
                summary.add(f"{modality}_{kind}_instructions", share)
        return summary


def _instructions(example: Any) -> tuple[list[str], list[Mapping[str, Any]]]:
    ids, arguments = example.metadata.get("instruction_id_list"), example.metadata.get("kwargs")
    if isinstance(arguments, str):
        arguments = parse_json(arguments, f'{example.location}: "kwargs"', "a list of objects")
    if not isinstance(ids, list) or not isinstance(arguments, list) or len(ids) != len(arguments) or not ids:
        raise ValueError(
            f'{example.location}: "instruction_id_list" and "kwargs" must be lists of one length, as in google/IFEval'
        )
    if not all(isinstance(name, str) for name in ids) or not all(isinstance(a, dict | None) for a in arguments):
        raise ValueError(f'{example.location}: "instruction_id_list" holds texts, "kwargs" objects or null')
    return ids, [given or {} for given in arguments]


def _record(
    example: Any, modality: str, response: str, ids: Sequence[str], arguments: Sequence[Mapping[str, Any]]
) -> Prediction:
    followed = check_instructions(example.question, response, ids, arguments)
    counts = {"strict": sum(followed.strict), "loose": sum(followed.loose), "instructions": len(ids)}
    return Prediction(
        id=example.id,
        modality=modality,
        question=example.question,
        prediction=response,
        correct=all(followed.strict),
        source=example.source,
        figures={key: float(value) for key, value in counts.items()},
    )
