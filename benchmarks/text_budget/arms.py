"""The runs to compare: some keep to a budget, some do not."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

WATCHED, HELD_OUT = "watched", "heldout"
REMEDY = "plain_text_kl"


@dataclass(frozen=True)
class Arm:
    """One run.

    Attributes:
        seed: Of the run and of the order of its data.
        weight: Of the distillation, initially if it is controlled; None leaves it out.
        budget: Nats per token; None for no budget.
    """

    seed: int
    weight: float | None = None
    budget: float | None = None

    @property
    def kind(self) -> str:
        """The remedy for text."""
        if self.weight is None:
            return "free" if self.budget is None else f"rollback={self.budget:g}"
        return f"fixed={self.weight:g}" if self.budget is None else f"control={self.budget:g}"

    @property
    def name(self) -> str:
        """Of its folder and its row."""
        return f"{self.kind}_seed={self.seed}"


def arms(options: argparse.Namespace) -> list[Arm]:
    """Returns the arms: first those with a budget, for all seeds, then what they are compared with."""
    found = [Arm(seed, options.start, budget) for seed in options.seeds for budget in options.budgets]
    for seed in options.frontier:
        found += [Arm(seed), *(Arm(seed, weight) for weight in options.weights)]
        found += [Arm(seed, None, budget) for budget in options.budgets]
    return found


def settings(arm: Arm, options: argparse.Namespace) -> dict[str, Any]:
    """Returns what differs from the quickstart.

    Args:
        arm: Which.
        options: Of the command.
    """
    text = {"modality": "text", "tokens": options.cut}
    return {
        "seed_everything": arm.seed,
        "trainer": {
            "max_steps": options.steps,
            "val_check_interval": options.steps,
            "logger": {"class_path": "RunCSVLogger"},
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "callbacks": [*_budgets(arm, options), _retention()],
        },
        "model": {
            "objectives": [{"class_path": "AnswerCrossEntropy"}, *_remedy(arm, options)],
            "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": options.lr, "weight_decay": 0.0}},
        },
        "data": {
            "seed": arm.seed,
            "eval_limit": options.questions,
            "tokens_per_batch": options.tokens,
            "probes": {
                WATCHED: {**text, "source": "plain-text/probe", "examples": options.passages},
                HELD_OUT: {**text, "source": "plain-text/evaluation", "examples": options.heldout},
            },
        },
    }


def _budgets(arm: Arm, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The callbacks that act, followed by one that only reads other text at the end."""
    control = {"class_path": "ControlWeight", "init_args": {"of": REMEDY}}
    actions = [*([control] if arm.weight is not None else []), {"class_path": "RollBack"}] if arm.budget else []
    every = options.every if arm.budget and arm.weight is not None else options.steps
    kept = {"text": WATCHED, "max_increase": arm.budget or 1.0, "every_n_steps": every, "actions": actions}
    read = {"text": HELD_OUT, "max_increase": 1.0, "every_n_steps": options.steps, "actions": []}
    return [{"class_path": "TextBudget", "init_args": budget} for budget in (kept, read)]


def _retention() -> dict[str, Any]:
    options = {"at_start": False, "metrics": ["accuracy", "loss"], "max_new_tokens": 20}
    return {"class_path": "Retention", "init_args": options}


def _remedy(arm: Arm, options: argparse.Namespace) -> list[dict[str, Any]]:
    if arm.weight is None:
        return []
    beside = {"weight": arm.weight, "passages": options.beside, "tokens": options.cut}
    return [{"class_path": "PlainTextDistillation", "init_args": beside}]
