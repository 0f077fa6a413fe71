"""Does the model hear the words?"""

from __future__ import annotations

from collections.abc import Sequence

from typing_extensions import override

from ...evaluation import (
    NOT_NEGATIVE,
    Prediction,
    RetentionSummary,
    bootstrap_ratio,
    share_interval,
    wilson_interval,
)
from ...evaluation.recognition import word_errors
from .evaluation import Evaluation, Measured, limited
from .gathered_scorer import GatheredScorer

REPEAT = "\nRepeat the text above."
"""What the shipped adaptor was aligned with (configs/align_listen.yaml)."""


class SpeechRecognition(Evaluation):
    """Asks the model to repeat a clip's words and counts the word errors (jiwer, Whisper's normalisation of English).

    A line of the set has ``audio`` and the words said as ``question``. A model tuned to answer may answer instead of
    repeating; so the rate says whether it hears only where it is low. ``repeated`` is the share of clips with at least
    half of the words right.

    Args:
        source: A name of ``data.sets``, a manifest, or ``asset:recorded-speech`` (``textkeep assets`` fetches it).
        instruction: Text after the clip.
        max_new_tokens: Longest transcript.
        limit: Most clips.
    """

    def __init__(
        self,
        source: str = "asset:recorded-speech",
        instruction: str = REPEAT,
        max_new_tokens: int = 64,
        limit: int | None = None,
    ) -> None:
        if max_new_tokens < 1:
            raise ValueError(f"SpeechRecognition.max_new_tokens: {max_new_tokens} (allowed: at least 1)")
        self.source = source
        self.instruction = instruction
        self.max_new_tokens = max_new_tokens
        self.limit = limit

    @override
    def measure(self, scorer: GatheredScorer, name: str) -> Measured:
        clips = [example for example in scorer.data.evaluation_set(self.source) if example.has("speech")]
        clips = limited(clips, self.limit)
        if not clips:
            raise ValueError(f"SpeechRecognition: {self.source} has no clip")
        heard = scorer.responses(
            clips, "speech", speech_instruction=self.instruction, max_new_tokens=self.max_new_tokens
        )
        return Measured([heard_record(e.id, e.question, heard[e.id], e.source) for e in clips if e.id in heard])

    @override
    def summarize(self, records: Sequence[Prediction], baseline: Sequence[Prediction]) -> RetentionSummary:
        return word_error_summary(records)


def heard_record(identity: str, said: str, heard: str, source: str) -> Prediction:
    """Makes the record of one transcript."""
    errors, words = word_errors(said, heard)
    figures = {"errors": float(errors), "words": float(words), "repeated": float(2 * errors <= words)}
    return Prediction(identity, "speech", said, (said,), heard, errors == 0, source=source, figures=figures)


def word_error_summary(records: Sequence[Prediction]) -> RetentionSummary:
    """Returns the word error rate, and the shares of clips without an error and with at least half the words."""
    summary = RetentionSummary(items=len(records))
    counts = [record.figures for record in records if record.figures.get("words")]
    if counts:
        errors, words = [c["errors"] for c in counts], [c["words"] for c in counts]
        if any(errors):
            summary.add("wer", bootstrap_ratio(errors, words, bounds=NOT_NEGATIVE))
        else:  # resamples of clips without an error are all alike
            summary.add("wer", share_interval(errors, words))
        summary.add("repeated", wilson_interval(sum(c["repeated"] > 0 for c in counts), len(counts)))
        summary.add("without_error", wilson_interval(sum(c["errors"] == 0 for c in counts), len(counts)))
    return summary
