"""Strategies and precisions that train something else than they seem to are refused by name, early."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from jsonargparse import Namespace
from lightning.pytorch import Trainer
from lightning.pytorch.plugins.precision import HalfPrecision
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy, SingleDeviceStrategy, StrategyRegistry

from textkeep.datamodules import SpeechTextData
from textkeep.lightning_modules import ConcatMLP, SpeechLLM, WhisperEncoder
from textkeep.lightning_modules.supported_trainer import check_strategy_setting


@pytest.fixture
def folders(tiny_llm_dir: Path, tiny_whisper_dir: Path) -> tuple[Path, Path]:
    return tiny_llm_dir, tiny_whisper_dir


ALLOWED = {"single_device", "ddp", "ddp_find_unused_parameters_true", "ddp_find_unused_parameters_false"}


def test_every_other_strategy_is_refused_by_name() -> None:
    refused = set(StrategyRegistry) - ALLOWED
    assert {"fsdp", "deepspeed_stage_3", "ddp_spawn", "ddp_fork", "ddp_notebook", "xla"} <= refused
    for name in refused:
        with pytest.raises(ValueError, match=r"not supported.*; allowed: auto, ddp, ddp_find_unused_parameters_true"):
            check_strategy_setting(name)
    for name in ALLOWED:
        check_strategy_setting(name)


@pytest.mark.parametrize("kind", [FSDPStrategy, ModelParallelStrategy])
def test_a_class_that_shards_is_refused(kind: type) -> None:
    path = f"{kind.__module__}.{kind.__name__}"
    with pytest.raises(ValueError, match=f"trainer.strategy: {kind.__name__} is not supported"):
        check_strategy_setting(Namespace(class_path=path, init_args=Namespace()))
    check_strategy_setting(Namespace(class_path="lightning.pytorch.strategies.DDPStrategy"))
    check_strategy_setting("auto")


class Sharding(SingleDeviceStrategy):
    """Derived from what is allowed, as DeepSpeed's is from DDP."""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strategy": Sharding(torch.device("cpu"))}, r"trainer\.strategy: Sharding is not supported"),
        ({"precision": "16-true"}, r"trainer\.precision: 16-true is not supported .*NaN\); allowed: 32-true, 64-true"),
        ({"plugins": [HalfPrecision("16-true")]}, r"trainer\.precision: 16-true is not supported"),
    ],
    ids=["strategy", "precision", "plugin"],
)
def test_a_trainer_is_refused_before_data_or_weights_are_read(
    options: dict[str, Any], message: str, folders: tuple[Path, Path]
) -> None:
    model = SpeechLLM(str(folders[0]), WhisperEncoder(str(folders[1])), ConcatMLP(5, 16))
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, **options)
    with pytest.raises(ValueError, match=message):
        trainer.fit(model, SpeechTextData("no/such.jsonl"))
    assert model.llm is None


def test_processes_that_cannot_give_their_weights_back_are_refused(folders: tuple[Path, Path]) -> None:
    model = SpeechLLM(str(folders[0]), WhisperEncoder(str(folders[1])), ConcatMLP(5, 16))
    model.trainer = Trainer(accelerator="cpu", strategy="ddp_fork", devices=2, logger=False, enable_checkpointing=False)
    with pytest.raises(ValueError, match=r"trainer\.strategy: processes that are started by fork are not supported"):
        model.configure_callbacks()
