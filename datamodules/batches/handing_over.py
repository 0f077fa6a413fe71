"""How a worker hands a batch to the main process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch.utils.data import get_worker_info


@dataclass
class NotHandedOver:
    """What a worker gives in place of a batch that it could not hand over.

    Args:
        reason: What torch or the system said.
    """

    reason: str


def hand_over(batch: Any) -> Any:
    """Puts a worker's batch into shared memory, where the main process reads it; one of this process stays as it is.

    Torch would do it in a thread, whose error is lost with the batch: the main process would wait for ever.

    Returns:
        The batch, or ``NotHandedOver``.
    """
    if get_worker_info() is None or not hasattr(batch, "share_memory"):
        return batch
    try:
        return batch.share_memory()
    except (RuntimeError, OSError) as error:
        return NotHandedOver(f"{type(error).__name__}: {error}")
