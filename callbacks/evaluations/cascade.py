"""The ceiling: a recogniser transcribes the question, and the untouched LLM answers it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from typing_extensions import override

from ...evaluation import Prediction, RetentionSummary, exact_match, qa_match, token_f1
from ...evaluation.recognition import word_errors
from ...evaluation.transcriber import Transcriber
from .evaluation import Evaluation, Measured, limited
from .gathered_scorer import GatheredScorer
from .speech_recognition import word_error_summary

CLIPS_AT_ONCE = 8
SAMPLING_RATE = 16000


class Cascade(Evaluation):
    """Whisper's transcript answered by the LLM as it was before tuning: what every speech LLM is compared with.

    The recogniser is by default the one whose encoder the model listens with, so that both hear equally well; ``wer``
    says how well. Asked are the paired questions of the data module (or of a set): the records have the ids of
    Retention's, ``speech`` by way of the transcript and ``text`` as written. The untouched LLM takes the memory of a
    second model, unless the tuning can switch itself off (adapters).

    Args:
        recogniser: Hub id, folder or ``asset:`` name of a Whisper with its decoder; None takes the encoder's own.
        source: A name of ``data.sets`` or a manifest; None takes the questions of validation or test.
        limit: Most items.
    """

    def __init__(self, recogniser: str | None = None, source: str | None = None, limit: int | None = None) -> None:
        self.recogniser = recogniser
        self.source = source
        self.limit = limit

    @override
    def measure(self, scorer: GatheredScorer, name: str) -> Measured:
        data = scorer.data
        examples = data.eval_pairs() if self.source is None else data.evaluation_set(self.source)
        examples = limited([e for e in examples if e.has("speech") and e.has("text")], self.limit)
        if not examples:
            raise ValueError(f"Cascade: {self.source or 'the data module'} has no question both spoken and written")
        transcripts = scorer.gathered(self._transcripts(scorer, examples[scorer.rank :: scorer.world_size]))
        heard = [replace(e, question=transcripts[e.id] or "?", audio=None) for e in examples]
        spoken = scorer.responses(heard, "text", untouched=True)
        written = scorer.responses(examples, "text", untouched=True)
        scorer.model.reference.release()
        records = [_record(e, "speech", spoken[e.id], transcripts[e.id]) for e in examples]
        return Measured(records + [_record(e, "text", written[e.id], None) for e in examples])

    @override
    def summarize(self, records: Sequence[Prediction], baseline: Sequence[Prediction]) -> RetentionSummary:
        summary = super().summarize(records, ())  # the untouched LLM does not change with the steps
        summary.add("wer", word_error_summary([r for r in records if r.modality == "speech"]).interval("wer"))
        return summary

    def _transcripts(self, scorer: GatheredScorer, examples: Sequence[Any]) -> dict[str, str]:
        """Returns what Whisper hears, by item; clips of similar length go together."""
        source = self.recogniser or getattr(scorer.model.encoder, "source", None)
        if source is None:
            raise ValueError(
                "Cascade: the model's encoder is no Whisper by itself; allowed: recogniser, which names one"
            )
        transcriber = Transcriber(scorer.model.find_pretrained(source))
        clips = {e.id: scorer.data.waveform(e, SAMPLING_RATE).numpy() for e in examples}
        ordered = sorted(clips, key=lambda identity: len(clips[identity]))
        found: dict[str, str] = {}
        for start in range(0, len(ordered), CLIPS_AT_ONCE):
            ids = ordered[start : start + CLIPS_AT_ONCE]
            with torch.autocast(device_type=scorer.model.device.type, enabled=False):
                found.update(zip(ids, transcriber([clips[identity] for identity in ids]), strict=True))
        return found


def _record(example: Any, modality: str, response: str, transcript: str | None) -> Prediction:
    figures: dict[str, float] = {}
    if transcript is not None:
        errors, words = word_errors(example.question, transcript)
        figures = {"errors": float(errors), "words": float(words), "repeated": float(2 * errors <= words)}
    return Prediction(
        id=example.id,
        modality=modality,
        question=example.question,
        answers=tuple(example.answers),
        prediction=response,
        correct=qa_match(response, example.answers),
        source=example.source,
        category=str(example.metadata.get("category", "")),
        exact=exact_match(response, example.answers),
        f1=token_f1(response, example.answers),
        transcript=transcript,
        figures=figures,
    )
