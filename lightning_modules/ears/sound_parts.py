"""The modules of an audio LLM that hear, apart from those that read and write."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

PROJECTORS = re.compile(r"(^|\.)(\w*projector|\w*connector|embed_audio|(up|down)_proj_for_speech)$")
"""Names of what maps frames of sound to positions of the LLM, in the families of transformers."""
INSIDE_TOWER = re.compile(r"(^|\.)audio_tower\.(ln_post|proj\d?)$")
"""The same, where the tower itself ends with it (Qwen Omni)."""
SEES = re.compile(r"visual|vision|image|video")
"""What the name of a part holds that sees: it is neither trained nor moved."""


class _Place(nn.Module):
    """A module of an audio LLM, with some of its children; what is put in the place of one (LoRA) is so in both."""

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out the audio LLM's module."""
        return {name: value for name, value in vars(self).items() if name != "original"}

    def stand_for(self, original: nn.Module) -> None:
        """Notes the audio LLM's module, whose parameters it does not register."""
        vars(self)["original"] = original

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        original = vars(self).get("original")
        if isinstance(original, nn.Module) and isinstance(value, nn.Module):
            setattr(original, name, value)


class SoundPart(_Place):
    """Some modules of an audio LLM, under the names that they have in it; empty until it is loaded."""

    def hold(self, path: str, whole: nn.Module) -> None:
        """Takes a module in; it stays where it is in the audio LLM, too.

        Args:
            path: Its name there.
            whole: The audio LLM.
        """
        *parents, name = path.split(".")
        place: nn.Module = self
        self.stand_for(whole)
        for depth, parent in enumerate(parents, start=1):
            if not hasattr(place, parent):
                inner = _Place()
                inner.stand_for(whole.get_submodule(".".join(parents[:depth])))
                place.add_module(parent, inner)
            place = place.get_submodule(parent)
        place.add_module(name, whole.get_submodule(path))


def divide(
    whole: nn.Module, llm: nn.Module, encoder: SoundPart, adaptor: SoundPart, chosen: Sequence[str] | None = None
) -> None:
    """Puts every module that hears into one of two parts; none is copied, and each is in one only.

    Args:
        whole: The audio LLM.
        llm: The text LLM that was taken out of it.
        encoder: Receives what turns sound into frames.
        adaptor: Receives what turns frames into positions of the LLM.
        chosen: Shell patterns over names of modules that make the adaptor; None finds a projector.

    Raises:
        ValueError: If there is no such module, or one that cannot be divided.
    """
    kind = type(whole).__name__
    between = _adaptor_names(whole, kind, chosen)
    read = {id(parameter) for parameter in llm.parameters()}
    reading = {id(module) for module in llm.modules()} | {id(module) for module in _decoder(whole).modules()}

    def visit(path: str, module: nn.Module) -> None:
        own = [parameter for parameter in module.parameters() if id(parameter) not in read]
        textual = not own and (id(module) in reading or any(True for _ in module.parameters()))
        if textual or SEES.search(path.rpartition(".")[2]):
            return
        if path in between:
            adaptor.hold(path, whole)
        elif _is_of_one_piece(path, module, between, read):
            encoder.hold(path, whole)
        elif any(id(p) not in read for p in module.parameters(recurse=False)) or (
            own and any(True for _ in module.buffers(recurse=False))
        ):
            raise ValueError(
                f"model.ear: {path or kind} of {kind} holds tensors beside its parts: it cannot be divided"
            )
        else:
            for name, child in module.named_children():
                visit(f"{path}.{name}" if path else name, child)

    visit("", whole)
    if not any(True for _ in adaptor.parameters()):
        raise ValueError(f"model.ear: none of the modules that make the adaptor of {kind} has a weight to train")


def _adaptor_names(whole: nn.Module, kind: str, chosen: Sequence[str] | None) -> set[str]:
    names = [name for name, _ in whole.named_modules() if name]
    if chosen is None:
        found = [name for name in names if PROJECTORS.search(name) and not SEES.search(name)]
        found = found or [name for name in names if INSIDE_TOWER.search(name)]
        if not found:
            raise ValueError(
                f"model.ear: no projector of {kind} is known by its name; allowed: OwnEar.adaptor_modules, which does"
            )
        return set(found)
    for pattern in chosen:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ValueError(f"model.ear: adaptor_modules '{pattern}' matches no module of {kind}")
    return {name for name in names if any(fnmatchcase(name, pattern) for pattern in chosen)}


def _decoder(whole: nn.Module) -> nn.Module:
    decoder = getattr(whole, "get_decoder", lambda: None)()
    return nn.Module() if decoder is None else decoder


def _is_of_one_piece(path: str, module: nn.Module, between: set[str], read: set[int]) -> bool:
    """Tells whether a module hears as a whole: without an adaptor, an eye or a weight of the text LLM inside."""
    if not path or any(id(parameter) in read for parameter in module.parameters()):
        return False
    inside = [f"{path}.{name}" for name, _ in module.named_modules() if name]
    return not any(name in between or SEES.search(name.rpartition(".")[2]) for name in inside)
