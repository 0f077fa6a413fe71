"""The loss whose gradient is scored: per example, the mean over its answer tokens."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

IGNORED = -100


class AnswerLoss:
    """Forward pass of a causal LM and the loss of each example.

    Only the logits that predict an answer token are computed where the model can do so (``logits_to_keep``): the
    others have no gradient, and with a vocabulary of 128k they would cost more than a decoder block.

    Args:
        model: Takes ``input_ids`` or ``inputs_embeds`` and ``attention_mask``; returns logits or an object with them.
        autocast: Compute type of the forward pass, ``None`` for none.
    """

    def __init__(self, model: nn.Module, autocast: torch.dtype | None = None) -> None:
        self._model = model
        self._autocast = autocast
        self._known = _forward_parameters(model)

    def takes(self, name: str) -> bool:
        """Tells whether the forward of the model knows an argument."""
        return name in self._known

    def forward(self, batch: Mapping[str, Any], **more: Tensor) -> tuple[Tensor, Tensor]:
        """Computes logits (B, K, V) at the K positions where any example has an answer token, and targets (B, K).

        Args:
            batch: ``input_ids`` or ``inputs_embeds``, ``labels`` and ``attention_mask``.
            **more: Further arguments of the model.

        Raises:
            ValueError: If an example has no answer token.
        """
        labels: Tensor = batch["labels"]
        supervised = labels[:, 1:] != IGNORED
        empty = (~supervised.any(dim=1)).nonzero().flatten().tolist()
        if empty:
            ids = batch.get("ids")
            name = ids[empty[0]] if ids is not None else f"row {empty[0]}"
            raise ValueError(f"importance: example {name} has no answer token (all labels are {IGNORED})")
        keep = supervised.any(dim=0).nonzero().flatten()
        inputs = {k: batch[k] for k in ("input_ids", "inputs_embeds", "attention_mask") if batch.get(k) is not None}
        if "inputs_embeds" in inputs:
            inputs.pop("input_ids", None)
            inputs["inputs_embeds"] = inputs["inputs_embeds"].detach().clone().requires_grad_(torch.is_grad_enabled())
        inputs.update(more)
        if "use_cache" in self._known:
            inputs["use_cache"] = False
        if "logits_to_keep" in self._known:
            inputs["logits_to_keep"] = keep
        device = labels.device.type
        with torch.autocast(device, self._autocast, enabled=self._autocast is not None):  # off even inside an outer one
            output = self._model(**inputs)
        logits = output if isinstance(output, Tensor) else output.logits
        if "logits_to_keep" not in self._known:
            logits = logits[:, keep]
        return logits, labels[:, keep + 1]

    @staticmethod
    def per_example(logits: Tensor, targets: Tensor) -> Tensor:
        """Computes the mean cross-entropy over the answer tokens of each example, (B,), at least in float32."""
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        tokens = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="none")
        counts = (targets != IGNORED).sum(dim=1)
        return tokens.view_as(targets).sum(dim=1) / counts

    @staticmethod
    @torch.no_grad()
    def sampled_targets(logits: Tensor, targets: Tensor, seeds: Sequence[int]) -> Tensor:
        """Draws targets from the model's prediction at the answer positions: ``E_y~p g(y)^2`` is the true Fisher.

        Kunstner et al. 2019 (arXiv 1905.12558).

        Drawn on the CPU, from one stream an example: the same for every batching, rank and device.

        Args:
            logits: (B, K, V).
            targets: (B, K), ``IGNORED`` where there is no answer token.
            seeds: One an example.
        """
        drawn = targets.clone()
        for row, seed in enumerate(seeds):
            answer = targets[row] != IGNORED
            chances = torch.softmax(logits[row][answer].double(), dim=-1).cpu()
            generator = torch.Generator().manual_seed(seed)
            drawn[row, answer] = torch.multinomial(chances, 1, generator=generator)[:, 0].to(targets.device)
        return drawn


def answer_spans(mask: Tensor, labels: Tensor) -> list[tuple[int, int]]:
    """Finds the positions of each example that can have a gradient: content, before the last answer token."""
    spans = []
    for content, supervised in zip(mask.bool(), labels != IGNORED, strict=True):
        places, answers = content.nonzero().flatten(), supervised.nonzero().flatten()
        spans.append((int(places[0]), int(answers[-1])) if len(places) and len(answers) else (0, len(content)))
    return spans


def draw_seed(seed: int, draw: int, key: str) -> int:
    """Returns an example's own seed of a draw of labels.

    Args:
        seed: Of the measurement.
        draw: Number of the draw.
        key: Hash of the example.
    """
    return int.from_bytes(hashlib.sha256(f"{seed}/{draw}/{key}".encode()).digest()[:8], "big") >> 1


def _forward_parameters(model: nn.Module) -> set[str]:
    """Lists the names that the forward of the model, or of the model inside a peft wrapper, takes."""
    inner = model
    for _ in range(2):  # PeftModel.base_model (LoraModel).model
        inner = getattr(inner, "base_model", inner) if hasattr(inner, "peft_config") else inner
        inner = getattr(inner, "model", inner) if hasattr(inner, "peft_config") else inner
    return set(inspect.signature(inner.forward).parameters)
