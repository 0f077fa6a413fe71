"""A checkpoint of another model is refused with both values, whatever differs."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import pytest
import torch

from textkeep.lightning_modules import LoRA
from textkeep.lightning_modules.saving.structure import DERIVED, check_shapes, check_structure, other_weights

LORA = {"r": 4, "alpha": None, "dropout": 0.0, "targets": None, "gate": None, "adaptor_lr": None, "rates": None}
SETTINGS: dict[str, Any] = {
    "llm": "a/llm",
    "encoder": {
        "class_path": "textkeep.lightning_modules.WhisperEncoder",
        "init_args": {"source": "w", "padded": False},
    },
    "adaptor": {"class_path": "textkeep.lightning_modules.ConcatMLP", "init_args": {"stack": 5, "hidden": 32}},
    "tuning": {"class_path": "textkeep.lightning_modules.LoRA", "init_args": LORA},
    "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.1}},
    "lr_schedule": "cosine",
}
MASK = {
    "class_path": "RandomMask",
    "init_args": {"of": {"class_path": "ImportanceMask", "init_args": {"fraction": 0.1}}},
}
FULL = {"class_path": "FullFineTuning", "init_args": {"protect": None}}

CHANGED: dict[str, tuple[str, Any, str]] = {
    "rank": ("tuning.r", 16, "model.tuning.r is 4 in the checkpoint and 16 in the config"),
    "scale": ("tuning.alpha", 3, "model.tuning.alpha is null in the checkpoint and 3 in the config"),
    "targets": ("tuning.targets", ["q_proj"], "model.tuning.targets is null in the checkpoint and ['q_proj'] in"),
    "gate": ("tuning.gate", {"class_path": "SpeechTurns"}, "tuning.gate is null in the checkpoint and SpeechTurns"),
    "strategy": (
        "tuning",
        {"class_path": "DepthUpScaling"},
        "model.tuning is LoRA in the checkpoint and DepthUpScalin",
    ),
    "no strategy": ("tuning", None, "model.tuning is LoRA in the checkpoint and FullFineTuning in the config"),
    "adaptor's size": ("adaptor.hidden", 16, "model.adaptor.hidden is 32 in the checkpoint and 16 in the config"),
    "adaptor": ("adaptor", {"class_path": "StackSwiGLU"}, "model.adaptor is ConcatMLP in the checkpoint and StackSw"),
    "encoder": ("encoder", {"class_path": "HFEncoder"}, "model.encoder is WhisperEncoder in the checkpoint and HFEnc"),
    "encoder's use": ("encoder.padded", True, "model.encoder.padded is False in the checkpoint and True in the config"),
}
MAY_CHANGE: dict[str, tuple[str, Any]] = {
    "rates": ("tuning.rates", {"class_path": "ExponentialDepthRates"}),
    "learning rate": ("tuning.adaptor_lr", 0.1),
    "dropout": ("tuning.dropout", 0.1),
    "place of the encoder": ("encoder.source", "elsewhere/w"),
    "what null means, said": ("tuning.alpha", 8),
    "optimizer": ("optimizer.lr", 0.2),
    "schedule": ("lr_schedule", "linear"),
    "module of a class": ("tuning.class_path", "textkeep.lightning_modules.tuning.lora.LoRA"),
    "a newer option": ("tuning.new", 3),
}


def changed(key: str, value: Any) -> Mapping[str, Any]:
    settings = copy.deepcopy(SETTINGS)
    part, _, option = key.partition(".")
    if not option:
        settings[part] = value
    elif option == "class_path":
        settings[part]["class_path"] = value
    else:
        settings[part]["init_args"][option] = value
    return settings


@pytest.mark.parametrize("case", CHANGED)
def test_a_change_of_structure_is_told_with_both_values(case: str) -> None:
    key, value, message = CHANGED[case]
    with pytest.raises(ValueError, match="the checkpoint is of another model: ") as caught:
        check_structure({"hyper_parameters": SETTINGS}, changed(key, value))
    assert message in str(caught.value)


@pytest.mark.parametrize("case", MAY_CHANGE)
def test_what_is_no_structure_may_change(case: str) -> None:
    check_structure({"hyper_parameters": SETTINGS}, changed(*MAY_CHANGE[case]))
    check_structure({"hyper_parameters": changed(*MAY_CHANGE[case])}, SETTINGS)


def test_what_null_means_is_what_the_strategy_takes() -> None:
    assert DERIVED["alpha"]({"r": 6}) == LoRA(r=6).alpha
    own = {**SETTINGS, "tuning": {"class_path": "my.Tuning", "init_args": {"alpha": None}}}
    check_structure({"hyper_parameters": own}, copy.deepcopy(own))  # a class without a rank


def test_masks_are_compared_below_their_classes() -> None:
    full = {**SETTINGS, "tuning": None}
    check_structure({"hyper_parameters": full}, {**SETTINGS, "tuning": FULL})
    masked = {**FULL, "init_args": {"protect": MASK}}
    with pytest.raises(ValueError, match=r"tuning\.protect is null in the checkpoint and RandomMask in the config"):
        check_structure({"hyper_parameters": {**SETTINGS, "tuning": FULL}}, {**SETTINGS, "tuning": masked})
    other = copy.deepcopy(masked)
    other["init_args"]["protect"]["init_args"]["of"]["init_args"]["fraction"] = 0.2
    with pytest.raises(ValueError, match=r"tuning\.protect\.of\.fraction is 0\.1 in the checkpoint and 0\.2 in"):
        check_structure({"hyper_parameters": {**SETTINGS, "tuning": masked}}, {**SETTINGS, "tuning": other})


def test_parts_that_were_built_in_python_and_files_without_settings_are_not_compared() -> None:
    check_structure({"hyper_parameters": {**SETTINGS, "adaptor": object()}}, SETTINGS)
    check_structure({}, SETTINGS)


def test_shapes_are_told_with_the_name_of_the_weights() -> None:
    module = torch.nn.Linear(4, 3)
    saved = {"hyper_parameters": {**SETTINGS, "llm": "b/llm"}, "state_dict": torch.nn.Linear(8, 3).state_dict()}
    with pytest.raises(
        ValueError, match=r"'weight' is \(3, 8\) in it and \(3, 4\) here \(1 such names\); model\.llm is"
    ):
        check_shapes(saved, module, SETTINGS)
    assert other_weights({"hyper_parameters": SETTINGS}, SETTINGS) == ""
