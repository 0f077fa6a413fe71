"""Part of the LLM trains."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

from lightning.pytorch.utilities import rank_zero_info
from torch import nn

from ...foundation.decoder import decoder_layers
from .masks import WeightMask
from .rates import LayerRates
from .weight_tuning import WeightTuning

SHOWN = 4


class PartialFineTuning(WeightTuning):
    """Adaptor and chosen weights of the LLM train, the rest is frozen.

    This can freeze the lower layers, as in transfer learning since ULMFiT (arXiv 1801.06146), or all but some kinds of
    matrices. If both are given, a weight must meet both.

    Args:
        layers: Decoder layers that train, counted from 0: ``"8-15"``, ``"20-"`` (to the last), ``"0-3,28-29"``.
        patterns: Shell patterns over parameter names inside the LLM; a weight must match one of them:
            ``["*.mlp.*"]``, ``["model.layers.3.self_attn.*"]``. An output head tied to the embeddings is one weight
            with them: naming either trains both.
        adaptor_lr: Learning rate of the adaptor; ``None`` takes the optimizer's own.
        rates: Layer-wise learning rates of the layers that train.
        protect: Single weights to keep fixed, including against weight decay and momentum.

    Raises:
        ValueError: If neither choice is given, or ``layers`` cannot be read.
    """

    def __init__(
        self,
        layers: str | int | None = None,
        patterns: Sequence[str] | None = None,
        adaptor_lr: float | None = None,
        rates: LayerRates | None = None,
        protect: WeightMask | None = None,
    ) -> None:
        super().__init__(adaptor_lr, rates, protect)
        if layers is None and not patterns:
            raise ValueError(
                "PartialFineTuning: say what trains, by layers or by patterns; for nothing of the LLM take "
                "AdaptorOnly, for all of it FullFineTuning"
            )
        self.layers = layers
        self.patterns = None if patterns is None else list(patterns)
        if layers is not None:
            _ranges(str(layers))

    def prepare(self, llm: nn.Module, encoder: nn.Module, adaptor: nn.Module) -> None:
        """Freezes what is not chosen.

        Raises:
            ValueError: For a layer that does not exist, a pattern that matches nothing, or rates without layers.
        """
        encoder.requires_grad_(False)
        llm.requires_grad_(False)
        adaptor.requires_grad_(True)
        blocks = decoder_layers(llm)
        candidates = dict(llm.named_parameters(remove_duplicate=False))
        if self.layers is not None:
            inside = {id(p) for i in layer_indices(str(self.layers), len(blocks)) for p in blocks[i].parameters()}
            candidates = {name: parameter for name, parameter in candidates.items() if id(parameter) in inside}
        for name in _matching(self.patterns, list(candidates), self.layers):
            candidates[name].requires_grad_(True)
        _tell_tied(llm)
        if self.rates is not None and not any(p.requires_grad for p in blocks.parameters()):
            raise ValueError("model.tuning: layer-wise rates are of decoder layers, but none of these trains")


def layer_indices(text: str, count: int) -> list[int]:
    """Lists the layers that a text such as ``"0-3,28-"`` names.

    Args:
        text: Numbers and ranges (both ends included), separated by commas.
        count: Number of layers.

    Raises:
        ValueError: If the text cannot be read or names a layer that does not exist.
    """
    chosen: set[int] = set()
    for first, last in _ranges(text):
        end = count - 1 if last is None else last
        if max(first, end) >= count:
            raise ValueError(
                f"PartialFineTuning: layers '{text}' are out of range: the LLM has decoder layers 0-{count - 1}"
            )
        chosen.update(range(first, end + 1))
    return sorted(chosen)


def _ranges(text: str) -> list[tuple[int, int | None]]:
    ranges: list[tuple[int, int | None]] = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d+)\s*(-)?\s*(\d+)?\s*", part)
        if not found or (found[3] and not found[2]) or (found[3] and int(found[3]) < int(found[1])):
            raise ValueError(f"PartialFineTuning: layers '{text}' cannot be read; allowed: 8, 8-15, 20- or 0-3,28-29")
        last = int(found[3]) if found[3] else None if found[2] else int(found[1])
        ranges.append((int(found[1]), last))
    return ranges


def _matching(patterns: Sequence[str] | None, names: list[str], layers: str | int | None) -> list[str]:
    """Finds the names that match a pattern, each of which must match some name; all names without patterns."""
    if patterns is None:
        return names
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            where = "" if layers is None else f" in the layers {layers}"
            spread = ", ".join(names[:: max(1, len(names) // SHOWN)][:SHOWN])
            raise ValueError(
                f"PartialFineTuning: pattern '{pattern}' matches no weight of the LLM{where}; it has such as {spread}"
            )
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]


def _tell_tied(llm: nn.Module) -> None:
    """Reports an output head that trains because it shares its weight with the embeddings."""
    names: dict[int, list[str]] = {}
    for name, parameter in llm.named_parameters(remove_duplicate=False):
        if parameter.requires_grad:
            names.setdefault(id(parameter), []).append(name)
    for tied in names.values():
        if len(tied) > 1:
            rank_zero_info(f"model.tuning: {' and '.join(tied)} are one weight and train together")
