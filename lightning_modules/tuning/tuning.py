"""The contract of a tuning strategy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...foundation.decoder import decoder_layers
from ...foundation.run_names import OTHER_GROUP, layer_group
from ..contract import Need, SpeechModel
from ..llm.changes import Change, DenseChange
from ..llm.own_lora import OwnLoRA, told
from .importance_user import ImportanceUser
from .rates import LayerRates


@dataclass
class ParameterGroup:
    """Parameters that share a learning rate, under a name that the learning-rate monitor shows.

    Attributes:
        name: ``adaptor``, ``encoder``, ``llm.07`` or ``llm.other``.
        parameters: The trainable ones.
        lr: Its learning rate; ``None`` takes the optimizer's own.
        multiplier: Factor on that rate (layer-wise learning rates).
    """

    name: str
    parameters: list[nn.Parameter]
    lr: float | None = None
    multiplier: float = 1.0


class Tuning(ABC):
    """Decides what trains, before the optimizer and DDP see the model.

    The life of a run, in the order in which its hooks are called:

    1. ``FSDP2`` asks :meth:`needs_whole`. The weights are read: :meth:`loading_options`, then :meth:`prepare` sets
       ``requires_grad`` (once: changed during a run, ranks would drift apart silently) and puts in what trains;
       :meth:`adopt`, where the LLM came with LoRA; :meth:`recompute_options`.
    2. A checkpoint is loaded, if there is one: :meth:`match_checkpoint`, the tensors, :meth:`load_extra_state`.
    3. The optimizer is built: :meth:`parameter_groups` (with :meth:`multipliers`), :meth:`attach_to_optimizer`.
    4. A new fit begins: :meth:`initialize`; what :meth:`importance_users` wait for is measured.
    5. Every batch is read under :meth:`reading`; every optimizer step ends with :meth:`edit_gradients`.
    6. Measurements during training take place under :meth:`measuring` and :meth:`untouched`; a run that exceeds its
       text budget goes part of :meth:`way_back`; comparisons with the untouched LLM use :meth:`grow`.
    7. A checkpoint is written: :meth:`frozen_to_save` and :meth:`extra_state`, beside everything that trains.
    8. The trained model is exported: :meth:`remove_inserted`, on request.
    """

    #: Whether anything inside the LLM trains (its own weights, LoRA or inserted layers).
    trains_llm: bool = True
    #: Whether the LLM's original weights change; under LoRA they do not.
    moves_base_weights: bool = True
    #: Layer-wise learning rates, if the strategy takes them.
    rates: LayerRates | None = None
    #: Whether what was learned can be written into plain weights of the LLM; gated LoRA cannot.
    mergeable: bool = True
    #: What it needs from at least one objective; otherwise it is refused when the model is built.
    needs: tuple[Need, ...] = ()

    @property
    def keeps_adaptor(self) -> bool:
        """Whether the adaptor's own weights stay, so that it must begin with learned ones."""
        return False

    @property
    def changes_text(self) -> bool:
        """Whether the LLM's behaviour on text without speech can change."""
        return self.trains_llm

    @property
    def turns_back(self) -> bool:
        """Whether :meth:`way_back` can undo part of what the LLM learned."""
        return self.moves_base_weights

    def needs_whole(self) -> str | None:
        """Names what needs whole weights and therefore cannot train when they are sharded (``FSDP2``).

        None if nothing must; what does not say so is refused there. Rank zero alone reads the weights then: elsewhere
        :meth:`prepare` meets an LLM and an encoder on the meta device, and what it makes of them gets rank zero's
        values.
        """
        return type(self).__name__

    # ------------------------------------------------------------------ the weights are read

    def loading_options(self) -> dict[str, Any]:
        """Returns arguments for ``from_pretrained`` of the LLM that is trained."""
        return {}

    @abstractmethod
    def prepare(self, llm: nn.Module, encoder: nn.Module, adaptor: nn.Module) -> None:
        """Sets ``requires_grad`` everywhere; may put LoRA or layers into the LLM, which keeps its class."""

    def adopt(self, llm: nn.Module, brought: Mapping[str, OwnLoRA]) -> None:
        """Goes on from LoRA that the LLM came with, for sound alone; called after :meth:`prepare`.

        Args:
            llm: As :meth:`prepare` left it.
            brought: By the names of the matrices.

        Raises:
            ValueError: If the strategy is no LoRA that acts as this one did.
        """
        raise ValueError(
            f"model.ear: own_lora: gate needs model.tuning: LoRA with gate: SpeechTurns, {told(brought)}, not "
            f"{type(self).__name__}; allowed: that, or own_lora: merge"
        )

    def recompute_options(self) -> dict[str, Any]:
        """Returns further arguments for ``torch.utils.checkpoint`` (besides ``use_reentrant``)."""
        return {}

    # ------------------------------------------------------------------ a checkpoint is loaded

    def match_checkpoint(self, llm: nn.Module, state: Mapping[str, Tensor]) -> None:  # noqa: B027 - a hook
        """Adopts the shapes of a checkpoint's tensors before they are loaded.

        Args:
            llm: As :meth:`prepare` left it.
            state: The LLM's tensors in the checkpoint, by their names inside the LLM.
        """

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Restores what :meth:`extra_state` returned, before the optimizer is built."""
        for name, user in self.importance_users().items():
            user.load_state_dict(state.get(name, {}))

    # ------------------------------------------------------------------ the optimizer is built

    @abstractmethod
    def parameter_groups(self, llm: nn.Module, encoder: nn.Module, adaptor: nn.Module) -> list[ParameterGroup]:
        """Returns every trainable parameter in exactly one group."""

    def multipliers(self, llm: nn.Module) -> list[float] | None:
        """Returns the factor on the learning rate of each decoder layer, if there are layer-wise rates."""
        return None if self.rates is None else self.rates.multipliers(len(decoder_layers(llm)))

    def attach_to_optimizer(self, llm: nn.Module, optimizer: torch.optim.Optimizer) -> None:  # noqa: B027 - a hook
        """Hooks into the steps of the newly built optimizer."""

    # ------------------------------------------------------------------ a new fit begins

    def initialize(self, model: SpeechModel) -> list[Tensor]:
        """Sets the initial values of a new fit that depend on weights or data; a loaded one already has them.

        Called on every rank before the first step, on the model's device.

        Returns:
            The tensors that it set: rank 0's values will be used on all ranks.
        """
        return []

    def importance_users(self) -> dict[str, ImportanceUser]:
        """Returns the parts that may request a measurement of importance, by the option that holds them."""
        return {} if self.rates is None else {"rates": self.rates}

    # ------------------------------------------------------------------ it is trained

    def reading(self, audio_mask: Tensor) -> AbstractContextManager[None]:
        """Returns the context in which the LLM reads a batch.

        Args:
            audio_mask: (B, T), true at speech positions of the batch.
        """
        return nullcontext()

    def edit_gradients(self, llm: nn.Module) -> None:  # noqa: B027 - a hook
        """Changes the LLM's gradients in an optimizer step, after normalisation and before clipping."""

    # ------------------------------------------------------------------ it is measured

    def measuring(self, modality: str) -> AbstractContextManager[None] | None:
        """Returns the context in which importance is measured on a probe.

        Args:
            modality: ``speech`` or ``text``.

        Returns:
            A context; ``None`` if no single weight matrix acts on such examples.
        """
        return nullcontext()

    def untouched(self, llm: nn.Module) -> AbstractContextManager[None] | None:
        """Returns a context in which the LLM is as it was before tuning, if that needs no copy; otherwise ``None``."""
        return None

    def way_back(self, llm: nn.Module, untouched: Callable[[], nn.Module]) -> Change:
        """Returns what training has changed so far; part of it can be undone in place, and training can go on.

        Args:
            llm: The trained LLM.
            untouched: Returns a copy of the LLM as it was before tuning, if one is needed.
        """
        return DenseChange(llm, dict(untouched().named_parameters()))

    def grow(self, base: nn.Module) -> nn.Module:
        """Brings an untouched LLM into the shape that this strategy trains, by inserting its layers if it has any."""
        return base

    # ------------------------------------------------------------------ a checkpoint is written

    def frozen_to_save(self, llm: nn.Module) -> list[Tensor]:
        """Returns the frozen tensors that the untouched LLM lacks and that checkpoints must therefore contain."""
        return []

    def extra_state(self) -> dict[str, Any]:
        """Returns further state for a checkpoint, as plain values and tensors."""
        return {name: user.state_dict() for name, user in self.importance_users().items()}

    # ------------------------------------------------------------------ the trained model is exported

    def remove_inserted(self, llm: nn.Module) -> None:
        """Removes inserted layers permanently, which restores the untouched LLM.

        Raises:
            ValueError: If the strategy inserts none.
        """
        raise ValueError(f"{type(self).__name__} inserts no layers that could be removed")


def trainable(module: nn.Module) -> list[nn.Parameter]:
    """Returns the module's trainable parameters."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def llm_groups(llm: nn.Module, multipliers: Sequence[float] | None = None) -> list[ParameterGroup]:
    """Builds one group for each decoder layer, ``llm.00`` …, and ``llm.other`` for embeddings, final norm and head.

    Args:
        llm: The language model.
        multipliers: Of the learning rate, one per decoder layer; ``llm.other`` keeps the optimizer's rate.
    """
    layers = decoder_layers(llm)
    factors = multipliers or [1.0] * len(layers)
    groups = [
        ParameterGroup(layer_group(i), trainable(layer), multiplier=factor)
        for i, (layer, factor) in enumerate(zip(layers, factors, strict=True))
    ]
    in_layers = {id(parameter) for group in groups for parameter in group.parameters}
    rest = [parameter for parameter in trainable(llm) if id(parameter) not in in_layers]
    return [group for group in [*groups, ParameterGroup(OTHER_GROUP, rest)] if group.parameters]
