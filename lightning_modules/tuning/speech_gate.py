"""LoRA that acts only where there is speech."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn

from .injection import switch


class _Fixed(Enum):
    """A state that is independent of any batch."""

    OFF = "off"
    OPEN = "open"


class SpeechGate(ABC):
    """Lets LoRA act only on the speech of a batch; everything unrelated to speech is the base model's, bit for bit.

    LoRA is off unless the LLM is reading a batch (:meth:`reading`), so that anything else that runs it (a text
    benchmark, a measurement of text importance) sees the base model. While it reads, the update of each layer is
    replaced by a negative zero wherever the gate is closed: ``y + (-0.0)`` is ``y`` for every floating-point ``y``.
    """

    #: Whether it opens on all of a spoken row, as audio LLMs switch LoRA of their own.
    opens_whole_rows: bool = False

    def __init__(self) -> None:
        self._layers: list[Any] = []
        self._state: Tensor | _Fixed = _Fixed.OFF

    def __getstate__(self) -> dict[str, Any]:
        """Returns it as it was built: a module's settings go into its checkpoints, where weights have no place."""
        return {**vars(self), "_layers": [], "_state": _Fixed.OFF}

    def install(self, layers: Iterable[Any]) -> None:
        """Gates peft's LoRA layers, and closes the gate.

        Args:
            layers: All of the LLM's, each with its low-rank matrices in place.
        """
        self._layers = list(layers)
        for layer in self._layers:
            for name, up in layer.lora_B.items():
                # The output of B is scaled after this hook: a negative scale flips the zero's sign.
                up.register_forward_hook(self._hook(-0.0 if layer.scaling[name] >= 0 else 0.0))
        self._set(_Fixed.OFF)

    def _hook(self, zero: float) -> Callable[[nn.Module, Any, Tensor], Tensor]:
        def shut(module: nn.Module, args: Any, output: Tensor) -> Tensor:
            if not isinstance(self._state, Tensor):
                return output
            if output.dim() != 3 or len(output) != len(self._state):
                raise ValueError(
                    f"{type(self).__name__}: a Linear of the LLM works on {tuple(output.shape)} where the batch has "
                    f"{len(self._state)} rows; gated LoRA needs (rows, positions, features), so no routed experts"
                )
            gate = self.open_at(self._state, output.shape[1])
            return output.masked_fill(~gate[:, :, None].to(output.device), zero)

        return shut

    @abstractmethod
    def open_at(self, audio_mask: Tensor, length: int) -> Tensor:
        """Decides where LoRA acts.

        Args:
            audio_mask: (B, T), true at speech positions of the batch.
            length: Positions that the LLM processes: T, 1 in a decoding step with a cache, or more than T without one.

        Returns:
            (B, length).
        """

    @contextmanager
    def reading(self, audio_mask: Tensor) -> Iterator[None]:
        """Sets the gate for the batch within the context."""
        # Without gradients, a text batch needs no LoRA at all. With them, A and B stay in the graph with zero
        # gradients: under DDP, a rank without speech must not leave parameters unused.
        idle = not torch.is_grad_enabled() and not bool(audio_mask.any())
        with self._being(_Fixed.OFF if idle else audio_mask):
            yield

    def open(self) -> AbstractContextManager[None]:
        """Lets LoRA act everywhere within the context."""
        return self._being(_Fixed.OPEN)

    def recomputing(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """Serves as ``context_fn`` of ``torch.utils.checkpoint``: a pass is recomputed under its original gate."""
        return nullcontext(), self._being(self._state)

    def measuring_speech(self) -> AbstractContextManager[None] | None:
        """Lets LoRA act as on speech while importance is measured; ``None`` if that is not one matrix."""
        return None

    @contextmanager
    def _being(self, state: Tensor | _Fixed) -> Iterator[None]:
        before = self._state
        self._set(state)
        try:
            yield
        finally:
            self._set(before)

    def _set(self, state: Tensor | _Fixed) -> None:
        self._state = state
        switch(self._layers, off=state is _Fixed.OFF)


class SpeechPositions(SpeechGate):
    """LoRA acts on the positions that hold speech: the partial LoRA of BLSP-KD (arXiv 2405.19041).

    Text after the speech, including the answer, is computed by the base weights; LoRA affects it only through attention
    to the speech.
    """

    def open_at(self, audio_mask: Tensor, length: int) -> Tensor:
        """Opens at speech; everything after the prompt is text."""
        missing = length - audio_mask.shape[1]
        if missing < 0:
            return audio_mask.new_zeros(len(audio_mask), length)
        return nn.functional.pad(audio_mask, (0, missing))


class SpeechTurns(SpeechGate):
    """LoRA acts on all positions of rows that hold speech, the answer included; written questions see the base model.

    The strict form of one LoRA per modality: text behaviour cannot change, and spoken questions use all of LoRA.
    """

    opens_whole_rows = True

    def open_at(self, audio_mask: Tensor, length: int) -> Tensor:
        """Opens the whole of every row with speech."""
        return audio_mask.any(dim=1, keepdim=True).expand(-1, length)

    def measuring_speech(self) -> AbstractContextManager[None]:
        """Opens the gate: on a spoken row the weights are W + sBA everywhere."""
        return self.open()
