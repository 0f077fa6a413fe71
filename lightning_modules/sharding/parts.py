"""Which parts of a run work with sharded weights; the others are refused by name."""

from __future__ import annotations

from collections.abc import Iterable


def check_parts(parts: Iterable[object]) -> None:
    """Refuses parts that need whole weights before anything is read, instead of a hang or a wrong figure.

    Args:
        parts: Whatever has a method ``needs_whole``, which names what of it cannot; others can, or need no weights.

    Raises:
        ValueError: With the name.
    """
    for part in parts:
        needs_whole = getattr(part, "needs_whole", None)
        name = None if needs_whole is None else needs_whole()
        if name is not None:
            raise ValueError(f"trainer.strategy: {name} is not supported with FSDP2; allowed: ddp, or leave it out")
