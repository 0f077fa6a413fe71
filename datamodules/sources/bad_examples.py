"""What happens to an example that cannot be used: a named error, or a counted skip."""

from __future__ import annotations

import warnings
from collections import Counter
from typing import Literal

from ...foundation.text_lines import BadLineError

OnBadExample = Literal["raise", "skip"]


class BadExampleError(ValueError):
    """An example that cannot be used.

    Args:
        reason: Short name of the fault, the key under which skips are counted ("corrupt clip").
        location: Where the example stands ("train.jsonl:12").
        message: What is wrong and what is allowed.
    """

    def __init__(self, reason: str, location: str, message: str) -> None:
        super().__init__(f"{location}: {message}")
        self.reason = reason
        self.location = location
        self.detail = message

    def __reduce__(self) -> tuple[type[BadExampleError], tuple[str, str, str]]:
        """Pickles the three arguments, so that the error crosses from a worker process."""
        return type(self), (self.reason, self.location, self.detail)


class BadExamples:
    """Applies ``on_bad_example`` and keeps count.

    Args:
        policy: ``raise`` stops at the first bad example, ``skip`` leaves it out and counts it.

    Attributes:
        counts: Reason -> examples.
        places: Place of an example -> the first reason for which it was left out.

    Raises:
        ValueError: If the policy is neither.
    """

    def __init__(self, policy: OnBadExample = "raise") -> None:
        if policy not in ("raise", "skip"):
            raise ValueError(f"on_bad_example: {policy!r} is not known (allowed: raise, skip)")
        self.policy = policy
        self.counts: Counter[str] = Counter()
        self.places: dict[str, str] = {}
        self._seen: set[tuple[str, str]] = set()

    def report(self, error: BadExampleError | BadLineError) -> None:
        """Raises the error, or counts it once per place; the first of each kind is shown as a warning.

        Raises:
            BadExampleError: If the policy is ``raise``.
        """
        if isinstance(error, BadLineError):
            error = BadExampleError(error.reason, error.location, error.detail)
        if self.policy == "raise":
            raise error
        key = (error.reason, error.location)
        if key in self._seen:
            return
        self._seen.add(key)
        self.places.setdefault(error.location, error.reason)
        if error.reason not in self.counts:
            warnings.warn(f"skipped: {error} (more of this kind are only counted)", stacklevel=2)
        self.counts[error.reason] += 1
