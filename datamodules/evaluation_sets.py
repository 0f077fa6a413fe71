"""Further sets of questions on which a run is scored, beside those of validation and test."""

from __future__ import annotations

from collections.abc import Mapping

from .sources.bad_examples import BadExamples
from .sources.example import Example
from .sources.named import Sources, read_sources


class EvaluationSets:
    """The sets of a run, each read once.

    Args:
        sources: By name.
        bad: Receives the examples that cannot be used.
    """

    def __init__(self, sources: Mapping[str, Sources], bad: BadExamples) -> None:
        self.sources = sources
        self.bad = bad
        self._read: dict[str, list[Example]] = {}

    def read(self, name: str) -> list[Example]:
        """Reads a set: one of ``data.sets``, a manifest, or ``spoken-facts/SPLIT``. Answers may be missing.

        Raises:
            FileNotFoundError: If there is no such set and no such manifest.
        """
        if name not in self._read:
            source = self.sources.get(name, name)
            try:
                self._read[name] = read_sources(source, self.bad, answers_required=False)
            except FileNotFoundError as error:
                known = ", ".join(self.sources) or "none is defined"
                raise FileNotFoundError(f"{error}; or a name of data.sets ({known})") from None
        return self._read[name]
