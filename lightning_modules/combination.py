"""Which strategies and objectives work together, and what they need to start; anything else is refused with a reason.

The parts declare this in class attributes such as ``runs_llm`` and ``trains_llm``, and in a list of ``needs``.
"""

from __future__ import annotations

from collections.abc import Sequence

from .contract import Need
from .objectives import Objective
from .objectives.loss_term import LossTerm
from .tuning import Tuning

RUN_LLM = Need(
    "runs_llm",
    "{other} does not run the LLM, which {owner} would train; add AnswerCrossEntropy, or take AdaptorOnly",
)


def check_combination(
    tuning: Tuning, terms: Sequence[LossTerm], of_audio_llm: bool = False, adaptor_is_new: bool = False
) -> None:
    """Refuses what makes no sense together; called when the model is built.

    Args:
        tuning: The tuning strategy.
        terms: Objectives and penalties, in order.
        of_audio_llm: Whether the ear is an audio LLM's own.
        adaptor_is_new: Whether the adaptor begins with random weights.

    Raises:
        ValueError: With the reason.
    """
    if not isinstance(terms[0], Objective):
        raise ValueError("model.objectives: the first must be over tokens (AnswerCrossEntropy), not a penalty")
    names = [term.name for term in terms]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"model.objectives: two are named '{twice}'; give it once, with the sum of the weights")
    taught = next((type(term).__name__ for term in terms if term.teaches_words), None)
    if of_audio_llm and taught is not None:
        raise ValueError(
            f"model.objectives: {taught} teaches an adaptor where the LLM's words are, which an audio LLM's own has "
            "learned; allowed: AnswerCrossEntropy, with AdaptorOnly to train the projector alone"
        )
    if adaptor_is_new and tuning.keeps_adaptor:
        raise ValueError(
            f"model.tuning: {type(tuning).__name__}.parts puts LoRA on an adaptor that begins with random weights, "
            "which would stay; allowed: model.adaptor_weights, or parts without adaptor, which then trains whole"
        )
    for need in (RUN_LLM, *tuning.needs) if tuning.trains_llm else tuning.needs:
        _check_need(need, tuning, terms)
    for term in terms:
        for need in term.needs:
            _check_need(need, term, [tuning])


def _check_need(need: Need, owner: object, others: Sequence[object]) -> None:
    if not any(getattr(other, need.trait, False) for other in others):
        names = {"owner": type(owner).__name__, "other": type(others[0]).__name__}
        raise ValueError(f"model.objectives: {need.refusal.format(**names)}")


def check_measured(tuning: Tuning) -> None:
    """Refuses to train while the strategy waits for a measurement of importance.

    Raises:
        RuntimeError: Naming what makes the measurement.
    """
    waiting = [name for name, user in tuning.importance_users().items() if user.waiting]
    if waiting:
        raise RuntimeError(
            f"model.tuning.{waiting[0]} waits for a measurement of importance: "
            "add the callback TuningImportance to the Trainer, or give a snapshot instead of a probe"
        )
