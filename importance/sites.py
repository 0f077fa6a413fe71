"""Where importance is measured: the weight matrices of a decoder, found by the structure of the module tree."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor, nn

from ..foundation.decoder import clean_name, find_blocks, is_dense, kind_of, other_stacks
from .weights import base_module, effective_weight, is_lora, refusal, whole

EXTRAS = ("embeddings", "norms")
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
NOT_DENSE = "not the weight of a Linear layer"


@dataclass(frozen=True, eq=False)
class Site:
    """One weight that is scored.

    Attributes:
        name: Name of the parameter in the unwrapped model, such as ``model.layers.3.mlp.up_proj.weight``.
        module: The module whose input and output are tapped (the LoRA wrapper where there is one).
        kind: ``q k v o gate up down`` where recognised, else the path inside the decoder block.
        layer: Index of the decoder block, ``None`` outside the blocks.
        shape: (out, in) of a matrix; (1, n) of a vector.
        head_dim: Size of an attention head where the matrix belongs to attention.
        parameter: For a norm: the name of the parameter inside ``module``; ``None`` for matrices.
        tied: For an output head that shares its weight: the embedding module.
        shared: Further modules that use the same weight, in this block or others.
    """

    name: str
    module: nn.Module
    kind: str
    layer: int | None
    shape: tuple[int, int]
    head_dim: int | None = None
    parameter: str | None = None
    tied: nn.Embedding | None = None
    shared: tuple[nn.Module, ...] = ()

    @property
    def size(self) -> int:
        """Number of single weights."""
        return self.shape[0] * self.shape[1]

    @property
    def stored(self) -> Tensor:
        """The parameter as the model holds it: the base weight under LoRA, a shard under FSDP."""
        if self.parameter is not None:
            return getattr(self.module, self.parameter)
        weight = base_module(self.module).weight
        assert isinstance(weight, Tensor)
        return weight

    def weight(self) -> Tensor:
        """The effective weight, of ``shape``, without a gradient; under FSDP gathered, so all ranks must call it."""
        if self.parameter is not None:
            return whole(getattr(self.module, self.parameter).detach()).reshape(self.shape)
        if isinstance(self.module, nn.Embedding):
            return whole(self.module.weight.detach())
        return effective_weight(self.module)


@dataclass
class SiteTable:
    """The sites of a model, and what is left out.

    Attributes:
        sites: In the order of the module tree, that is by depth; a weight that several modules share is one site.
        untapped: Parameter name -> reason, for weights of the decoder that are not scored.
        parameters: Number of parameters of the decoder: those of its blocks, the matrices of other lists of blocks,
            and the chosen extras.
        layers: Number of decoder blocks.
        blocks: The module list of decoder blocks.
    """

    sites: list[Site] = field(default_factory=list)
    untapped: dict[str, str] = field(default_factory=dict)
    parameters: int = 0
    layers: int = 0
    blocks: nn.ModuleList = field(default_factory=nn.ModuleList)

    @property
    def coverage(self) -> float:
        """Scored parameters over :attr:`parameters`."""
        return sum(site.size for site in self.sites) / max(self.parameters, 1)

    def without(self, reasons: Mapping[int, str]) -> SiteTable:
        """The table with some sites (by index) not scored, and why."""
        kept = [site for index, site in enumerate(self.sites) if index not in reasons]
        left_out = {self.sites[index].name: reason for index, reason in reasons.items()}
        return replace(self, sites=kept, untapped={**self.untapped, **left_out})


def find_sites(model: nn.Module, include: Collection[str] = ()) -> SiteTable:
    """Lists the weights to score: all dense matrices of the decoder blocks, and the extras asked for.

    Args:
        model: The bare model (see :func:`textkeep.importance.state.unwrap`).
        include: Any of ``"embeddings"`` (input embedding, output head and other dense matrices outside the blocks) and
            ``"norms"`` (norm weights and biases inside norm modules).

    Raises:
        ValueError: For an unknown extra or a model without decoder blocks.
    """
    unknown = sorted(set(include) - set(EXTRAS))
    if unknown:
        raise ValueError(f"importance: include={unknown!r} is unknown; allowed: {', '.join(EXTRAS)}")
    prefix, blocks = find_blocks(model)
    table = SiteTable(layers=len(blocks), blocks=blocks)
    for index, block in enumerate(blocks):
        _add_block(table, block, f"{prefix}.{index}", index, norms="norms" in include)
    adapters = {id(p) for m in blocks.modules() if is_lora(m) for p in _lora_parameters(m)}
    counted = {id(p): p.numel() for p in blocks.parameters() if id(p) not in adapters}
    extras = list(_embedding_sites(model, blocks)) if "embeddings" in include else []
    extras += _outer_norms(model, blocks) if "norms" in include else []
    table.sites = one_a_weight([*table.sites, *extras], table.untapped)
    counted.update({id(site.stored): site.size for site in extras})
    for name, parameter in other_stacks(model, blocks):
        if id(parameter) not in counted:
            counted[id(parameter)] = parameter.numel()
            table.untapped[name] = "outside the decoder blocks"
    table.parameters = sum(counted.values())
    return table


def sites_named(model: nn.Module, names: Collection[str], include: Collection[str] = ()) -> list[Site]:
    """The sites of a snapshot's matrices, in its order; it has none that a forward pass never reaches.

    Args:
        model: The measured model.
        names: Of the snapshot's table.
        include: As for :func:`find_sites`.
    """
    found = {site.name: site for site in find_sites(model, include).sites}
    return [found[name] for name in names]


def one_a_weight(sites: list[Site], untapped: dict[str, str]) -> list[Site]:
    """Makes one site of those whose modules are or share the same weight: all its uses are scored together.

    Args:
        sites: By depth; the first of a weight gives its name and layer.
        untapped: Parameter name -> reason; a weight that acts differently in the modules that share it is added.
    """
    by_weight: dict[int, list[Site]] = {}
    for site in sites:
        by_weight.setdefault(id(site.stored), []).append(site)
    found = []
    for first, *others in by_weight.values():
        modules = tuple({id(s.module): s.module for s in others if s.module is not first.module}.values())
        uses = (first.module, *modules)
        apart = (
            first.tied is not None or any(map(is_lora, uses)) or len({id(getattr(m, "bias", None)) for m in uses}) > 1
        )
        if modules and apart:
            untapped[first.name] = "shared by modules with adapters or biases of their own"
        else:
            found.append(replace(first, shared=modules) if modules else first)
    return found


def _add_block(table: SiteTable, block: nn.Module, prefix: str, layer: int, norms: bool) -> None:
    covered: set[int] = set()
    for path, module in _outermost_weights(block):
        name = clean_name(f"{prefix}.{path}.weight")
        reason = _routed(block, path) or refusal(module)
        if reason:
            table.untapped[name] = reason
        else:
            shape = effective_weight_shape(module)
            kind = kind_of(path)
            table.sites.append(Site(name, module, kind, layer, shape, _head_dim(block, path, kind)))
        covered.update(id(p) for p in module.parameters())
    if norms:
        for site in _norm_sites(block, prefix, layer):
            table.sites.append(site)
            covered.add(id(site.stored))
    for path, parameter in block.named_parameters():
        if id(parameter) not in covered and parameter.dim() > 1:
            what = _what(block.get_submodule(path.rpartition(".")[0]), parameter)
            table.untapped[clean_name(f"{prefix}.{path}")] = f"{what}, shape {tuple(parameter.shape)}"


def _what(owner: nn.Module, parameter: nn.Parameter) -> str:
    """What a parameter is that is no matrix of a dense layer."""
    if isinstance(owner, CONVOLUTIONS):
        return "convolution"
    return "fused experts" if parameter.dim() == 3 and "expert" in f"{type(owner).__name__}".lower() else NOT_DENSE


def effective_weight_shape(module: nn.Module) -> tuple[int, int]:
    """(out, in) of a dense layer, without forming a merged weight."""
    base = base_module(module)
    rows, columns = base.weight.shape  # type: ignore[misc]
    return (int(rows), int(columns)) if isinstance(base, nn.Linear) else (int(columns), int(rows))


def _outermost_weights(block: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Dense layers and LoRA wrappers, but not the parts inside a wrapper."""
    wrapped: list[str] = []
    for path, module in block.named_modules():
        if any(path.startswith(f"{outer}.") for outer in wrapped):
            continue
        if is_lora(module):
            wrapped.append(path)
            yield path, module
        elif is_dense(module):
            yield path, module


def _routed(block: nn.Module, path: str) -> str | None:
    """Experts see a varying subset of the tokens, detached from the examples: they cannot be scored per example."""
    parts = path.split(".")
    for end in range(1, len(parts)):
        if isinstance(block.get_submodule(".".join(parts[:end])), nn.ModuleList):
            return "inside a list of routed experts"
    return None


def _head_dim(block: nn.Module, path: str, kind: str) -> int | None:
    parent = block.get_submodule(path.rpartition(".")[0])
    size = getattr(parent, "head_dim", None)
    return int(size) if kind in ("q", "k", "v", "o") and isinstance(size, int) else None


def _lora_parameters(module: nn.Module) -> Iterator[nn.Parameter]:
    base = base_module(module)
    kept = {id(p) for p in base.parameters()}
    return (p for p in module.parameters() if id(p) not in kept)


def _norm_sites(root: nn.Module, prefix: str, layer: int | None) -> Iterator[Site]:
    """Vectors owned by modules without children that are no dense layers: RMSNorm, LayerNorm."""
    for path, module in root.named_modules():
        if is_dense(module) or isinstance(module, nn.Embedding) or next(module.children(), None) is not None:
            continue
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.dim() == 1:
                full = clean_name(".".join(part for part in (prefix, path, name) if part))
                kind = ".".join(part for part in (path, name) if part)
                yield Site(full, module, kind, layer, (1, parameter.numel()), parameter=name)


def _outer_norms(model: nn.Module, blocks: nn.ModuleList) -> Iterator[Site]:
    inside = {id(m) for m in blocks.modules()}
    for site in _norm_sites(model, "", None):
        if id(site.module) not in inside:
            yield site


def _output_head(model: nn.Module, dense: Sequence[nn.Module]) -> nn.Module | None:
    """The dense layer that makes the logits, of those outside the blocks: the model's own, else the only one."""
    getter = getattr(model, "get_output_embeddings", None)
    named = getter() if getter is not None else None
    if named is not None:
        return base_module(named)
    return base_module(dense[0]) if len(dense) == 1 else None


def _embedding_sites(model: nn.Module, blocks: nn.ModuleList) -> Iterator[Site]:
    """The matrices outside the blocks: input embeddings, output head, and what else is dense there, under its path.

    A weight that embedding and head share is one site, tapped at both ends.
    """
    inside = {id(m) for m in blocks.modules()}
    outer = [(n, m) for n, m in model.named_modules() if id(m) not in inside]
    heads = [(n, m) for n, m in _outermost_weights(model) if id(m) not in inside and refusal(m) is None]
    getter = getattr(model, "get_input_embeddings", None)
    words = getter() if getter is not None else None  # position tables are shared by the examples: left out
    tables = {id(m.weight): (n, m) for n, m in outer if isinstance(m, nn.Embedding) and (words is None or m is words)}
    head = _output_head(model, [module for _, module in heads])
    for name, module in heads:
        twin = tables.pop(id(base_module(module).weight), None)
        label = twin[0] if twin else name
        shape = effective_weight_shape(module)
        kind = "embedding" if twin else "lm_head" if base_module(module) is head else clean_name(name)
        yield Site(clean_name(f"{label}.weight"), module, kind, None, shape, tied=twin[1] if twin else None)
    for name, embedding in tables.values():
        shape = (embedding.num_embeddings, embedding.embedding_dim)
        yield Site(clean_name(f"{name}.weight"), embedding, "embedding", None, shape)
