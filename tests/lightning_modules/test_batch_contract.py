"""The batch of the data side is what the contracts of the model side and of the callbacks say."""

from __future__ import annotations

import inspect
import typing
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from tests.support.speech_run import make_data, make_model
from textkeep.callbacks import contract as of_callbacks
from textkeep.datamodules import Batch
from textkeep.lightning_modules import SpeechLLM
from textkeep.lightning_modules import contract as of_the_model


def members(protocol: type) -> dict[str, Any]:
    """Attribute of a protocol -> its type; of a method None."""
    found: dict[str, Any] = {}
    for name, value in vars(protocol).items():
        if isinstance(value, property):
            found[name] = typing.get_type_hints(value.fget)["return"]
        elif inspect.isfunction(value) and not name.startswith("_"):
            found[name] = None
    return found


@pytest.mark.parametrize("contract", [of_the_model, of_callbacks])
def test_it_has_every_attribute_with_its_type(contract: Any) -> None:
    own = typing.get_type_hints(Batch)
    assert {field.name for field in fields(Batch)} == set(own)
    wanted = members(contract.Batch)
    assert len(wanted) > 3
    for name, kind in wanted.items():
        if kind is None:
            assert callable(getattr(Batch, name))
        elif name == "twin":
            assert own[name] == Batch | None
        elif name == "modality":
            assert typing.get_origin(own[name]) is list  # of literals, which are a Sequence[str]
        elif name == "examples":
            assert hasattr(own[name], "__iter__")
        else:
            assert own[name] == kind, name


def test_a_batch_has_the_shapes_that_the_contract_tells(
    tmp_path: Path, tiny_llm_dir: Path, tiny_whisper_dir: Path
) -> None:
    """Letters stand for the same number throughout a batch: ``(B, T)``, ``(N, C, F)``."""
    model = make_model(tiny_llm_dir, tiny_whisper_dir)
    data = make_data(tmp_path)
    data.connect(model.front_end)
    data.setup("validate")
    spoken = [example for example in data.examples("val") if example.has("speech")]
    for twins in (False, True):
        batch = next(iter(data.loader(spoken, "speech", answers=True, twins=twins)))
        sizes = {"B": len(batch), "N": len(batch.feature_lengths)}
        assert sizes["B"] == sizes["N"] > 1
        assert (batch.twin is not None) == twins
        told = 0
        for name, value in vars(of_the_model.Batch).items():
            if not isinstance(getattr(batch, name, None), Tensor):
                continue
            shape = (value.__doc__ or "").partition(")")[0].strip("(").replace(" ", "").strip(",").split(",")
            found = getattr(batch, name).shape
            assert len(found) == len(shape), name
            for letter, size in zip(shape, found, strict=True):
                assert sizes.setdefault(letter, size) == size, (name, letter)
            told += 1
        assert told == 7
        assert len(batch.ids) == len(batch.modality) == sizes["B"]


def test_the_model_is_one_as_objectives_and_tunings_know_it(tiny_llm_dir: Path, tiny_whisper_dir: Path) -> None:
    model = make_model(tiny_llm_dir, tiny_whisper_dir)
    for protocol, part in ((of_the_model.SpeechModel, model), (of_the_model.UntouchedLLM, model.reference)):
        attributes = set(members(protocol)) | set(typing.get_type_hints(protocol))
        assert attributes > set(protocol.__annotations__)
        for name in attributes - {"trainer"}:  # without a fit there is none
            assert hasattr(part, name), name
    assert isinstance(inspect.getattr_static(SpeechLLM, "trainer"), property)
