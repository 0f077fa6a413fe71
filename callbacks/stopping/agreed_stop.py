"""What the ranks of a run have agreed on about stopping, and the exceptions that say so."""

from __future__ import annotations

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException

from ...foundation.errors import TERMINATED
from .stop_signals import STOP_SIGNALS, Wish


class AgreedStop(BaseException):
    """What all ranks raise at the same point of a run, after a whole optimizer step, once they have agreed to stop.

    Attributes:
        wish: What was asked.
    """

    wish: Wish = Wish.NONE


class AgreedInterrupt(AgreedStop, KeyboardInterrupt):
    """Ends the run as Ctrl-C does."""

    wish = Wish.INTERRUPT


class AgreedEnd(AgreedStop, SIGTERMException):
    """Ends the run as SIGTERM does."""

    wish = Wish.TERMINATE

    def __init__(self) -> None:
        super().__init__(TERMINATED)


class AgreedRequeue(AgreedEnd):
    """Ends the run as SIGTERM does; then its SLURM job is to be requeued."""

    wish = Wish.REQUEUE


_KINDS = {kind.wish: kind for kind in (AgreedInterrupt, AgreedEnd, AgreedRequeue)}


class Agreement:
    """Whether the ranks of a Trainer stop.

    Args:
        trainer: Its strategy joins the ranks.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._agreed = Wish.NONE

    def reach(self, working: bool = True) -> bool:
        """Checks with all ranks, which must all call this, what any of them was asked. Raises nothing.

        Args:
            working: Whether this rank has something left to do.

        Returns:
            Whether any rank has.
        """
        if self._agreed is Wish.NONE:
            wish, anyone = self.largest(STOP_SIGNALS.wish, working)
            self._agreed = Wish(wish)
            if self._agreed is not Wish.NONE:
                STOP_SIGNALS.carry_out()
            return bool(anyone)
        return working

    def hold_to(self) -> None:
        """Stops this rank if the ranks have agreed to; speaks to no other.

        Raises:
            AgreedStop: If they have.
        """
        if self._agreed is not Wish.NONE:
            raise _KINDS[self._agreed]

    def largest(self, *values: int) -> list[int]:
        """Returns the maximum of each value over all ranks, which must all call this."""
        if self._trainer.world_size == 1:
            return list(values)
        mine = torch.tensor(values, device=self._trainer.strategy.root_device)
        return self._trainer.strategy.reduce(mine, reduce_op="max").tolist()
