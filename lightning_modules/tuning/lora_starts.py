"""What LoRA's A and B begin with: principal directions of the weight itself, or of the data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

import torch
from peft import LoraConfig
from torch import Tensor, nn

from ..contract import Batch, SpeechModel
from .injection import TRAINED

INITIAL = "initial"
"""peft's name of the frozen pair A0, B0, which takes the first value of B A off again."""


class AdapterStart(ABC):
    """The values that A and B have when a new fit begins; a resumed or loaded one finds them in its checkpoint."""

    #: Whether B A is not zero at first.
    moves: bool

    def install(self, layers: Iterable[Any], config: LoraConfig) -> None:
        """Makes room for what is needed beside the A and B that learn.

        ``W + s (B A - B0 A0)`` is the residual form ``(W - s B0 A0) + s B A`` of PiSSA and OLoRA, without a change to
        W: with LoRA off the LLM is the untouched one, bit for bit, and its hash names it. B0 and A0 are a second pair,
        frozen, with the scale -s; they are zero until a fit begins.

        Args:
            layers: peft's layers, each with the A and B that learn.
            config: What peft made them from.
        """
        if not self.moves:
            return
        for layer in layers:
            rank = layer.r[TRAINED]
            layer.update_layer(INITIAL, rank, lora_alpha=config.lora_alpha, config=config)
            layer.set_adapter([TRAINED, INITIAL])
            layer.scaling[INITIAL] = -layer.scaling[TRAINED]
            layer.lora_dropout[INITIAL] = nn.Identity()
            for parameter in initial_parameters(layer):
                parameter.requires_grad_(False).zero_()

    @abstractmethod
    def initialize(self, model: SpeechModel, layers: dict[str, Any]) -> None:
        """Sets the values; called once, before the first step of a fit.

        Args:
            model: On its device, with a trainer and its data module.
            layers: peft's layers by name.
        """


def initial_parameters(layer: Any) -> list[Tensor]:
    """Returns A0 and B0 of a layer; none where B A begins at zero."""
    if INITIAL not in layer.lora_A:
        return []
    return [layer.lora_A[INITIAL].weight, layer.lora_B[INITIAL].weight]


class WeightStart(AdapterStart):
    """A start at which B A is a part of the weight itself, which is taken out of it."""

    moves = True

    @abstractmethod
    def factorise(self, layer: Any) -> None:
        """Lets peft set the layer's A and B from its weight."""

    @torch.no_grad()
    def initialize(self, model: SpeechModel, layers: dict[str, Any]) -> None:
        """Factorises the weight of each layer."""
        with torch.random.fork_rng(devices=_cuda(model)):
            for layer in layers.values():
                torch.manual_seed(0)
                self._begin_layer(layer)

    def _begin_layer(self, layer: Any) -> None:
        """Takes the values that peft finds, and puts back the tensors of A, B and the weight, which peft replaces."""
        parts = [layer.lora_A[TRAINED].weight, layer.lora_B[TRAINED].weight, layer.get_base_layer().weight]
        own = [part.data for part in parts]
        parts[2].data = own[2].to(torch.float32, copy=True)  # peft takes no float64
        self.factorise(layer)
        made = [part.data for part in parts[:2]]
        for part, data in zip(parts, own, strict=True):
            part.data = data
        for part, first, value in zip(parts[:2], initial_parameters(layer), made, strict=True):
            part.copy_(value)
            first.copy_(value)


class PiSSA(WeightStart):
    """Begins with the principal singular directions of the weight (PiSSA, arXiv 2404.02948), by peft.

    It trains the directions in which the weight is strongest, where plain LoRA begins at zero: it learns faster, and it
    moves what the text needs most.

    Args:
        iterations: Of the randomised SVD, which misses some of the directions whose singular values lie close; ``None``
            takes the exact one (0.2 s a matrix of 1536 x 576 on one CPU core).
    """

    def __init__(self, iterations: int | None = 16) -> None:
        if iterations is not None and iterations < 1:
            raise ValueError(f"PiSSA: iterations is {iterations}, but must be at least 1, or null for the exact SVD")
        self.iterations = iterations

    def factorise(self, layer: Any) -> None:
        """Takes the singular value decomposition."""
        layer.pissa_init(TRAINED, "pissa" if self.iterations is None else f"pissa_niter_{self.iterations}")


class OLoRA(WeightStart):
    """Begins with the first r columns and rows of the weight's QR decomposition (OLoRA, arXiv 2406.01775), by peft."""

    def factorise(self, layer: Any) -> None:
        """Takes the QR decomposition."""
        layer.olora_init(TRAINED)


class EVA(AdapterStart):
    """Begins with the principal directions of a layer's inputs on data as A (EVA, arXiv 2410.07170), by peft.

    B begins at zero, so the model begins as the untouched LLM. All matrices keep the same rank (the paper's rho = 1).

    Args:
        probe: Name of a probe of the data module whose examples are the data: the same on all ranks.
    """

    moves = False
    #: Passes over the data after which peft's incremental SVD is given up; it takes a handful. All examples are one
    #: batch, since peft calls directions converged when one more batch leaves them: few different ones never did.
    MAX_PASSES = 50

    def __init__(self, probe: str = "speech") -> None:
        self.probe = probe

    def initialize(self, model: SpeechModel, layers: dict[str, Any]) -> None:
        """Finds the directions on the probe and makes them A.

        Raises:
            ValueError: Without a data module that has probes, and if the probe has fewer positions than the rank.
            RuntimeError: If the directions do not come to rest.
        """
        from peft import EvaConfig
        from peft.tuners.lora.eva import get_eva_state_dict

        device = next(model.llm.parameters()).device
        with torch.no_grad():
            data = [_joined([_inputs(model, batch.to(device)) for batch in _probe_batches(model, self.probe)])]
        ranks = {f"llm.{name}.base_layer": layer.r[TRAINED] for name, layer in layers.items()}
        if int(data[0]["attention_mask"].sum()) < max(ranks.values()):
            raise ValueError(f"EVA: probe {self.probe!r} has fewer positions than the rank; take more examples")
        config = LoraConfig(
            r=max(ranks.values()),
            rank_pattern={name.replace(".", r"\."): rank for name, rank in ranks.items()},
            target_modules=list(ranks),
            init_lora_weights="eva",
            eva_config=EvaConfig(rho=1.0),
        )
        calls = 0

        def forward(bare: nn.Module, inputs: dict[str, Tensor]) -> None:
            nonlocal calls
            calls += 1
            if calls > self.MAX_PASSES:
                raise RuntimeError(f"EVA: the directions still move after {self.MAX_PASSES} passes over the probe")
            bare(**inputs)

        modes = [(module, module.training) for module in model.llm.modules()]
        with torch.random.fork_rng(devices=_cuda(model)):
            found = get_eva_state_dict(
                _Bare(model.llm),
                data,
                config,
                forward_fn=forward,
                prepare_model_inputs_fn=lambda inputs, _: inputs["attention_mask"].nonzero(),
                gather_distributed_inputs=False,
                show_progress_bar=False,
            )
        for module, mode in modes:
            module.training = mode
        with torch.no_grad():
            for name, layer in layers.items():
                layer.lora_A[TRAINED].weight.copy_(found[f"llm.{name}.base_layer"])


class _Bare(nn.Module):
    """The LLM as peft's EVA wants it: a module that is no peft model."""

    def __init__(self, llm: nn.Module) -> None:
        super().__init__()
        self.llm = llm

    def forward(self, **inputs: Tensor) -> Any:
        return self.llm(**inputs, use_cache=False)


def _inputs(model: SpeechModel, batch: Batch) -> dict[str, Tensor]:
    inputs = model.embed(batch)
    return {name: inputs[name] for name in ("inputs_embeds", "attention_mask")}


def _joined(batches: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Makes one batch of right-padded ones: inputs_embeds (N, T, H), attention_mask (N, T)."""
    length = max(inputs["attention_mask"].shape[1] for inputs in batches)
    missing = [length - inputs["attention_mask"].shape[1] for inputs in batches]
    embeds = [nn.functional.pad(i["inputs_embeds"], (0, 0, 0, more)) for i, more in zip(batches, missing, strict=True)]
    masks = [nn.functional.pad(i["attention_mask"], (0, more)) for i, more in zip(batches, missing, strict=True)]
    return {"inputs_embeds": torch.cat(embeds), "attention_mask": torch.cat(masks)}


def _probe_batches(model: SpeechModel, name: str) -> list[Batch]:
    data: Any = getattr(model.trainer, "datamodule", None)
    if not hasattr(data, "probe_batches"):
        raise ValueError(f"EVA needs a data module with probes (SpeechTextData), got {data!r}")
    return data.probe_batches(name)


def _cuda(model: SpeechModel) -> list[int]:
    return sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
