"""A limit on a figure: ``text_loss_increase > 0.02`` must not hold."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ...foundation.errors import UserError
from .facts import Fact

_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_ENDS = {"": 0, ".low": 1, ".high": 2}
_FORM = re.compile(r"\s*([\w./-]+?)(\.low|\.high)?\s*(>=|<=|>|<)\s*(\S+)\s*")


@dataclass(frozen=True)
class Limit:
    """A condition under which a run fails.

    Attributes:
        text: As written by the user.
        name: Of the figure.
        end: The part that is compared: empty for the estimate, ``.low`` or ``.high`` for a limit of its 95 % interval.
        sign: ``>``, ``>=``, ``<`` or ``<=``.
        number: The number to compare with.
    """

    text: str
    name: str
    end: str
    sign: str
    number: float

    @classmethod
    def parse(cls, text: str) -> Limit:
        """Reads a limit.

        Raises:
            UserError: If it does not have the form ``NAME > NUMBER``.
        """
        found = _FORM.fullmatch(text)
        try:
            number = float(found[4]) if found else math.nan
        except ValueError:
            number = math.nan
        if found is None or math.isnan(number):
            raise UserError(
                f"--fail-if {text!r} cannot be read; allowed: NAME > NUMBER, with >, >=, < or <=, and NAME.low or "
                "NAME.high for a limit of the interval"
            )
        return cls(text.strip(), found[1], found[2] or "", found[3], number)

    def broken_by(self, facts: Mapping[str, Fact]) -> bool:
        """Returns whether the condition is met; a figure that is not a number meets every condition.

        Raises:
            UserError: If there is no such figure; the message lists the existing ones.
        """
        if self.name not in facts:
            raise UserError(f"--fail-if {self.text!r}: no figure {self.name!r}; allowed: {', '.join(facts) or 'none'}")
        value = facts[self.name].limits[_ENDS[self.end]]
        return math.isnan(value) or _COMPARISONS[self.sign](value, self.number)
