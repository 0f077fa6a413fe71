"""LoRA: low-rank updates of the LLM's matrices, by peft."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from peft import LoraConfig
from torch import Tensor, nn

from ...foundation.decoder import decoder_layers
from ..contract import SpeechModel
from ..llm.changes import AdapterChange, Change
from ..llm.lora_layers import lora_layers
from ..llm.own_lora import OwnLoRA
from .injection import TRAINED, inject, linears, linears_that_hear, reshape, switched_off
from .layer_ranks import LayerRanks
from .lora_parts import chosen_parts
from .lora_starts import AdapterStart, initial_parameters
from .rates import LayerRates
from .speech_gate import SpeechGate
from .tuning import ParameterGroup, Tuning, llm_groups, trainable


class LoRA(Tuning):
    """The LLM's weights stay; each decoder matrix gets a low-rank update, ``W + s B A`` (arXiv 2106.09685), by peft.

    The paper (arXiv 2509.23755) takes all seven matrices of a layer, r = 8 for 1B and 16 for 8B, and alpha = 2r. The
    adaptor trains too. Without a ``start`` B is zero at first: the model begins as the untouched LLM, bit for bit.

    Encoder and adaptor can have LoRA of their own (``parts``): it is merged in every export, since it acts on the path
    of sound alone and cannot touch text. A start, ranks, rates and a gate are of the LLM's.

    Args:
        r: Rank.
        alpha: Scale of the update: ``s = alpha / r``; ``None`` takes 2r.
        dropout: On the inputs of A, while training.
        targets: Names of the LLM's matrices (``q_proj``, ...); ``None`` takes all dense layers of the decoder blocks.
        use_dora: Learn the length of each row of the weight apart from its direction (DoRA, arXiv 2402.09353).
        use_rslora: ``s = alpha / sqrt(r)`` (rank-stabilised, arXiv 2312.03732), for ranks of 32 and more.
        start: What A and B begin with (``PiSSA``, ``OLoRA``, ``EVA``).
        gate: Where the update acts; everywhere without.
        ranks: Another rank for each decoder layer, with the mean ``r``.
        rates: Layer-wise learning rates of the low-rank matrices.
        adaptor_lr: Learning rate of the adaptor; ``None`` takes the optimizer's own.
        parts: What gets LoRA, of ``llm``, ``adaptor`` and ``encoder``, each with names of its matrices or ``None`` for
            all dense layers; ``None`` takes the LLM with ``targets``. An LLM or encoder left out is frozen, an adaptor
            left out trains whole.

    Raises:
        ValueError: For values out of range, and for DoRA together with what it contradicts.
    """

    moves_base_weights = False

    def __init__(
        self,
        r: int = 8,
        alpha: int | None = None,
        dropout: float = 0.0,
        targets: Sequence[str] | None = None,
        use_dora: bool = False,
        use_rslora: bool = False,
        start: AdapterStart | None = None,
        gate: SpeechGate | None = None,
        ranks: LayerRanks | None = None,
        rates: LayerRates | None = None,
        adaptor_lr: float | None = None,
        parts: dict[str, list[str] | None] | None = None,
    ) -> None:
        if r < 1 or (alpha is not None and alpha <= 0):
            raise ValueError(f"LoRA: r is {r} and alpha is {alpha}, but both must be positive")
        if not 0 <= dropout < 1:
            raise ValueError(f"LoRA: dropout is {dropout}, but must lie in [0, 1)")
        if use_dora and gate is not None:
            raise ValueError("LoRA: use_dora rescales the weight itself, which a gate cannot take back; leave out one")
        if use_dora and start is not None and start.moves:
            raise ValueError(
                f"LoRA: {type(start).__name__} begins with B A as a part of the weight, use_dora with the weight's own "
                "row lengths; leave out one"
            )
        self.parts = chosen_parts(parts, targets)
        self.trains_llm = "llm" in self.parts
        of_llm = {"start": start, "gate": gate, "ranks": ranks, "rates": rates}
        if not self.trains_llm and (given := [name for name, value in of_llm.items() if value is not None]):
            raise ValueError(f"LoRA: {given[0]} is of the LLM's LoRA, and parts leaves the LLM out; leave out one")
        self.r = r
        self.alpha = 2 * r if alpha is None else alpha
        self.dropout = dropout
        self.use_dora = use_dora
        self.use_rslora = use_rslora
        self.lora_start = start
        self.gate = gate
        self.ranks = ranks
        self.rates = rates
        self.adaptor_lr = adaptor_lr
        self.mergeable = gate is None
        self._begun = False
        self._missing: FileNotFoundError | None = None

    # ------------------------------------------------------------------ before training

    def prepare(self, llm: nn.Module, encoder: nn.Module, adaptor: nn.Module) -> None:
        """Freezes what LoRA is on, and the encoder; puts the low-rank matrices into the parts that get them."""
        for part in (llm, encoder):
            part.requires_grad_(False)
        adaptor.requires_grad_(not self.keeps_adaptor)
        self._prepare_sound({"adaptor": adaptor, "encoder": encoder})
        if not self.trains_llm:
            return
        config = self.peft_config(linears(llm, self.parts["llm"]))
        inject(llm, config)
        layers = lora_layers(llm)
        if self.lora_start is not None:
            self.lora_start.install(layers.values(), config)
        reshape(layers, self._ranks(llm))
        if self.gate is not None:
            self.gate.install(layers.values())

    def _prepare_sound(self, hearing: Mapping[str, nn.Module]) -> None:
        for role, part in hearing.items():
            if role in self.parts:
                inject(part, self.peft_config(linears_that_hear(part, role, self.parts[role])))

    @torch.no_grad()
    def adopt(self, llm: nn.Module, brought: Mapping[str, OwnLoRA]) -> None:
        """Gives A and B the values that the audio LLM's own had, if they act as these did.

        Raises:
            ValueError: If they do not: behind another gate, on other matrices, or of another rank or scale.
        """
        layers = lora_layers(llm)
        plain = type(self) is LoRA and self.gate is not None and self.gate.opens_whole_rows and not self.use_dora
        if not plain or self.lora_start is not None or self.ranks is not None or layers.keys() != brought.keys():
            super().adopt(llm, brought)
        for name, (_, down, up, scale) in brought.items():
            layer = layers[name]
            if layer.r[TRAINED] != len(down) or not math.isclose(layer.scaling[TRAINED], scale):
                super().adopt(llm, brought)
            layer.lora_A[TRAINED].weight.copy_(down)
            layer.lora_B[TRAINED].weight.copy_(up)

    @property
    def keeps_adaptor(self) -> bool:
        """Whether the adaptor's own weights stay, which must then have been learned before."""
        return "adaptor" in self.parts

    def needs_whole(self) -> str | None:
        """Names a start, which reads the weights after they are divided; what has not been tried; what is derived."""
        if type(self) is not LoRA:
            return type(self).__name__
        if set(self.parts) != {"llm"}:
            return "LoRA with parts"
        return None if self.lora_start is None else f"LoRA with {type(self.lora_start).__name__}"

    @property
    def changes_text(self) -> bool:
        """Whether LoRA acts on text: behind a gate it does not, and in encoder and adaptor neither."""
        return self.gate is None and self.trains_llm

    @property
    def turns_back(self) -> bool:
        """Whether the LLM has LoRA, and what it adds is linear in B: with DoRA it is not."""
        return self.trains_llm and not self.use_dora

    def way_back(self, llm: nn.Module, untouched: Callable[[], nn.Module]) -> Change:
        """Scales B."""
        return AdapterChange(llm)

    def peft_config(self, targets: Iterable[str]) -> LoraConfig:
        """Says what peft is asked for.

        Args:
            targets: Full names of the layers that get LoRA.
        """
        return LoraConfig(
            r=self.r,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=list(targets),
            bias="none",
            use_dora=self.use_dora,
            use_rslora=self.use_rslora,
        )

    def _ranks(self, llm: nn.Module) -> dict[str, int]:
        """Returns the rank of each matrix, where it may be another one than ``r``."""
        if self.ranks is None:
            return {}
        blocks = decoder_layers(llm)
        try:
            ranks = self.ranks.of(len(blocks), self.r)
        except FileNotFoundError as error:  # a checkpoint brings the ranks; a new fit needs them (initialize)
            self._missing = error
            return {}
        owners = {id(module): rank for block, rank in zip(blocks, ranks, strict=True) for module in block.modules()}
        return {name: owners[id(layer)] for name, layer in lora_layers(llm).items()}

    def initialize(self, model: SpeechModel) -> list[Tensor]:
        """Gives A and B the values of their start.

        Raises:
            FileNotFoundError: If the ranks come from a snapshot that is not there.
        """
        if self._begun:
            return []
        if self._missing is not None:
            raise self._missing
        self._begun = True
        if self.lora_start is None:
            return []
        self.lora_start.initialize(model, lora_layers(model.llm))
        return [*trainable(model.llm), *self.frozen_to_save(model.llm)]

    def parameter_groups(self, llm: nn.Module, encoder: nn.Module, adaptor: nn.Module) -> list[ParameterGroup]:
        """Makes groups: the adaptor, the low-rank matrices of each decoder layer, and those of the encoder."""
        layers = llm_groups(llm, self.multipliers(llm))
        hears = [ParameterGroup("encoder", trainable(encoder))] if "encoder" in self.parts else []
        return [ParameterGroup("adaptor", trainable(adaptor), self.adaptor_lr), *layers, *hears]

    # ------------------------------------------------------------------ what acts when

    def reading(self, audio_mask: Tensor) -> AbstractContextManager[None]:
        """Sets the gate, if there is one."""
        return nullcontext() if self.gate is None else self.gate.reading(audio_mask)

    def recompute_options(self) -> dict[str, Any]:
        """Lets the gate of a forward pass hold for its recomputation."""
        return {} if self.gate is None else {"context_fn": self.gate.recomputing}

    def measuring(self, modality: str) -> AbstractContextManager[None] | None:
        """Leaves LoRA off for text behind a gate, and opens it for speech, if it then acts as one matrix."""
        if self.gate is None or modality == "text":
            return nullcontext()
        return self.gate.measuring_speech()

    def untouched(self, llm: nn.Module) -> AbstractContextManager[None]:
        """Switches LoRA off."""
        return switched_off(llm)

    # ------------------------------------------------------------------ checkpoints

    def frozen_to_save(self, llm: nn.Module) -> list[Tensor]:
        """Returns the frozen A0 and B0 of a start that is a part of the weight."""
        return [tensor for layer in lora_layers(llm).values() for tensor in initial_parameters(layer)]

    def match_checkpoint(self, llm: nn.Module, state: Mapping[str, Tensor]) -> None:
        """Gives A and B the ranks that they have in a checkpoint."""
        layers = lora_layers(llm)
        found = {name: state.get(f"{name}.lora_A.default.weight") for name in layers}
        reshape(layers, {name: len(tensor) for name, tensor in found.items() if tensor is not None})

    def extra_state(self) -> dict[str, Any]:
        """Adds whether A and B have their first values."""
        return {**super().extra_state(), "begun": self._begun}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Takes back what :meth:`extra_state` gave."""
        super().load_extra_state(state)
        self._begun = bool(state.get("begun", True))
