"""Which parts of a model get LoRA."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

PARTS = ("llm", "adaptor", "encoder")
"""What LoRA can be put on."""


def chosen_parts(
    parts: Mapping[str, list[str] | None] | None, targets: Sequence[str] | None
) -> dict[str, list[str] | None]:
    """Returns what gets LoRA, and the names of its matrices; ``None`` stands for all dense layers.

    Args:
        parts: As a config gives them; None takes the LLM.
        targets: Names of the LLM's matrices, where ``parts`` does not give them.

    Raises:
        ValueError: If a part is unknown, there is none, one has no matrices, or the LLM's are named twice.
    """
    lists = {"targets": targets} if parts is None else {f"parts.{name}": names for name, names in parts.items()}
    if empty := [name for name, names in lists.items() if names is not None and not names]:
        raise ValueError(
            f"LoRA: {', '.join(empty)} is an empty list; allowed: names of matrices, or null for all dense layers"
        )
    if parts is None:
        return {"llm": None if targets is None else list(targets)}
    if unknown := [name for name in parts if name not in PARTS]:
        raise ValueError(f"LoRA: parts {unknown} is none of the model's; allowed: {', '.join(PARTS)}")
    if not parts:
        raise ValueError(f"LoRA: parts is empty; allowed: {', '.join(PARTS)}, or AdaptorOnly in the place of LoRA")
    if targets is not None:
        raise ValueError("LoRA: targets names matrices of the LLM, and so does parts; allowed: parts.llm alone")
    return dict(parts)
