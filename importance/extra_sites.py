"""What can be scored in addition to the matrices of the decoder blocks: embeddings, the output head and norms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import nn

from ..foundation.decoder import clean_name, is_dense
from .site_table import Site
from .weights import base_module, effective_shape, outermost_weights, refusal


def norm_sites(root: nn.Module, prefix: str, layer: int | None) -> Iterator[Site]:
    """Vectors of childless modules that are not dense layers: RMSNorm, LayerNorm."""
    for path, module in root.named_modules():
        if is_dense(module) or isinstance(module, nn.Embedding) or next(module.children(), None) is not None:
            continue
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.dim() == 1:
                full = clean_name(".".join(part for part in (prefix, path, name) if part))
                kind = ".".join(part for part in (path, name) if part)
                yield Site(full, module, kind, layer, (1, parameter.numel()), parameter=name)


def outer_norms(model: nn.Module, blocks: nn.ModuleList) -> Iterator[Site]:
    """Finds the vectors of the norms outside the decoder blocks."""
    inside = {id(m) for m in blocks.modules()}
    for site in norm_sites(model, "", None):
        if id(site.module) not in inside:
            yield site


def _output_head(model: nn.Module, dense: Sequence[nn.Module]) -> nn.Module | None:
    """Finds the dense layer outside the blocks that makes the logits: the model's own, else the only one."""
    getter = getattr(model, "get_output_embeddings", None)
    named = getter() if getter is not None else None
    if named is not None:
        return base_module(named)
    return base_module(dense[0]) if len(dense) == 1 else None


def embedding_sites(model: nn.Module, blocks: nn.ModuleList) -> Iterator[Site]:
    """Finds the matrices outside the blocks: input embeddings, output head and any other dense layer.

    A weight shared by embedding and head is one site, tapped at both ends.
    """
    inside = {id(m) for m in blocks.modules()}
    outer = [(n, m) for n, m in model.named_modules() if id(m) not in inside]
    heads = [(n, m) for n, m in outermost_weights(model) if id(m) not in inside and refusal(m) is None]
    getter = getattr(model, "get_input_embeddings", None)
    words = getter() if getter is not None else None  # position tables are shared by the examples: left out
    tables = {id(m.weight): (n, m) for n, m in outer if isinstance(m, nn.Embedding) and (words is None or m is words)}
    head = _output_head(model, [module for _, module in heads])
    for name, module in heads:
        twin = tables.pop(id(base_module(module).weight), None)
        label = twin[0] if twin else name
        shape = effective_shape(module)
        kind = "embedding" if twin else "lm_head" if base_module(module) is head else clean_name(name)
        yield Site(clean_name(f"{label}.weight"), module, kind, None, shape, tied=twin[1] if twin else None)
    for name, embedding in tables.values():
        shape = (embedding.num_embeddings, embedding.embedding_dim)
        yield Site(clean_name(f"{name}.weight"), embedding, "embedding", None, shape)
