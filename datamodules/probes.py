"""Fixed examples on which importance is measured."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from .batches.batch import Batch
from .batches.loader_factory import LoaderFactory
from .sources.bad_examples import BadExamples
from .sources.example import Example, Modality
from .sources.named import SourceName, read_sources


@dataclass
class Probe:
    """A fixed choice of examples, which depends on nothing but this: source, modality, number and seed.

    Of a question, the loss is that of the answer. Of plain text (``plain-text/probe``, a .txt file, ``PlainText``) it
    is that of every token but the first, which nothing foretells: there training on answers can only lose.
    """

    source: SourceName
    """A manifest, ``spoken-facts/SPLIT``, ``plain-text/probe``, a .txt file, or a source."""
    modality: Modality = "text"
    """"speech" or "text"."""
    examples: int = 32
    """Number of examples."""
    seed: int = 0
    """Seed of the choice."""
    batch_size: int = 8
    """Rows of a batch; the scores are per example, so this is a matter of memory."""
    tokens: int | None = None
    """Plain text is cut after this many tokens; None takes whole passages."""

    def __post_init__(self) -> None:
        """Refuses values that make no sense."""
        if self.modality not in ("speech", "text"):
            raise ValueError(f"probe modality: {self.modality!r} (allowed: speech, text)")
        if self.examples < 1 or self.batch_size < 1:
            raise ValueError(
                f"probe examples: {self.examples}, batch_size: {self.batch_size} (allowed: at least 1 each)"
            )
        if self.tokens is not None and self.tokens < 2:
            raise ValueError(f"probe tokens: {self.tokens} (allowed: at least 2, or null for whole passages)")
        if self.tokens is not None and self.modality == "speech":
            raise ValueError(f"probe tokens: {self.tokens} cuts plain text (allowed: modality text, or no tokens)")

    def choose(self, examples: Sequence[Example]) -> list[Example]:
        """Chooses those with the smallest hashes of (seed, id): the same whatever the order, and stable under growth.

        Raises:
            ValueError: If no example has the modality, or ``tokens`` is to cut questions.
        """
        having = [example for example in examples if example.has(self.modality)]
        if not having:
            raise ValueError(f"probe: none of the {len(examples)} examples of {self.source} has {self.modality}")
        questions = sum(not example.plain for example in having)
        if self.tokens is not None and questions:
            fault = f"{questions} of the {len(having)} examples of {self.source} are questions"
            raise ValueError(f"probe tokens: {self.tokens} cuts plain text, but {fault} (allowed: no tokens)")
        return sorted(having, key=lambda e: hashlib.sha256(f"{self.seed}:{e.id}".encode()).digest())[: self.examples]


class ProbeSet:
    """The probes of a run; each is read once for a model.

    Args:
        probes: By name.
        bad: Receives the examples that cannot be used.
    """

    def __init__(self, probes: Mapping[str, Probe], bad: BadExamples) -> None:
        self.probes = probes
        self.bad = bad
        self._factory: LoaderFactory | None = None
        self._batches: dict[str, list[Batch]] = {}

    def batches(self, name: str, factory: Callable[[], LoaderFactory]) -> list[Batch]:
        """Returns the right-padded CPU batches of a probe, with answers.

        Args:
            name: Name of the probe.
            factory: Gives the maker of batches for the model; another maker makes them anew.

        Raises:
            ValueError: If no probe has this name.
        """
        if name not in self.probes:
            allowed = ", ".join(self.probes) or "none"
            raise ValueError(f"probe {name!r} is not defined in data.probes (allowed: {allowed})")
        maker = factory()
        if maker is not self._factory:  # the cached results were made for another model
            self._factory, self._batches = maker, {}
        if name not in self._batches:
            probe = self.probes[name]
            chosen = probe.choose(read_sources(probe.source, self.bad))
            self._batches[name] = maker.batches(chosen, probe.modality, probe.batch_size, tokens=probe.tokens)
        return self._batches[name]
