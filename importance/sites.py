"""Where importance is measured: the weight matrices of a decoder, found by the structure of the module tree."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

from torch import nn

from ..foundation.decoder import clean_name, find_blocks, kind_of, other_stacks
from .extra_sites import embedding_sites, norm_sites, outer_norms
from .site_table import Site, SiteTable
from .weights import base_module, effective_shape, is_lora, outermost_weights, refusal

EXTRAS = ("embeddings", "norms")
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
NOT_DENSE = "not the weight of a Linear layer"


def find_sites(model: nn.Module, include: Collection[str] = ()) -> SiteTable:
    """Lists the weights to score: all dense matrices of the decoder blocks, and the requested extras.

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
    extras = list(embedding_sites(model, blocks)) if "embeddings" in include else []
    extras += outer_norms(model, blocks) if "norms" in include else []
    table.sites = one_a_weight([*table.sites, *extras], table.untapped)
    counted.update({id(site.stored): site.size for site in extras})
    for name, parameter in other_stacks(model, blocks):
        if id(parameter) not in counted:
            counted[id(parameter)] = parameter.numel()
            table.untapped[name] = "outside the decoder blocks"
    table.parameters = sum(counted.values())
    return table


def sites_named(model: nn.Module, names: Collection[str], include: Collection[str] = ()) -> list[Site]:
    """Returns the sites of a snapshot's matrices, in its order; weights that no forward pass reaches are not in it.

    Args:
        model: The measured model.
        names: Of the snapshot's table.
        include: As for :func:`find_sites`.
    """
    found = {site.name: site for site in find_sites(model, include).sites}
    return [found[name] for name in names]


def one_a_weight(sites: list[Site], untapped: dict[str, str]) -> list[Site]:
    """Merges the sites that share a weight into one, so that all its uses are scored together.

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
    for path, module in outermost_weights(block):
        name = clean_name(f"{prefix}.{path}.weight")
        reason = _routed(block, path) or refusal(module)
        if reason:
            table.untapped[name] = reason
        else:
            shape = effective_shape(module)
            kind = kind_of(path)
            table.sites.append(Site(name, module, kind, layer, shape, _head_dim(block, path, kind)))
        covered.update(id(p) for p in module.parameters())
    if norms:
        for site in norm_sites(block, prefix, layer):
            table.sites.append(site)
            covered.add(id(site.stored))
    for path, parameter in block.named_parameters():
        if id(parameter) not in covered and parameter.dim() > 1:
            what = _what(block.get_submodule(path.rpartition(".")[0]), parameter)
            table.untapped[clean_name(f"{prefix}.{path}")] = f"{what}, shape {tuple(parameter.shape)}"


def _what(owner: nn.Module, parameter: nn.Parameter) -> str:
    """Describes a parameter that is not a matrix of a dense layer."""
    if isinstance(owner, CONVOLUTIONS):
        return "convolution"
    return "fused experts" if parameter.dim() == 3 and "expert" in f"{type(owner).__name__}".lower() else NOT_DENSE


def _routed(block: nn.Module, path: str) -> str | None:
    """Describes routed experts: they see a varying subset of tokens, so they cannot be scored per example."""
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
