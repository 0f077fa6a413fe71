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

from tests.support.sharded_runs import CELLS, Files
from textkeep import lightning_modules
from textkeep.callbacks import RollBackToCheckpoint, StopAtBudget, SubspaceOverlap, TextBudget, WeightChange
from textkeep.datamodules import SpeechTextData
from textkeep.lightning_modules import (
    FSDP2,
    AdaptorOnly,
    AnswerCrossEntropy,
    CachedTeacher,
    ConcatMLP,
    DepthUpScaling,
    LoRA,
    OPLoRA,
    PiSSA,
    QLoRA,
    SpeechLLM,
    TextTwinDistillation,
    Tuning,
    WhisperEncoder,
)
from textkeep.lightning_modules.ears.ear import Ear
from textkeep.lightning_modules.ears.encoder_adaptor import EncoderAdaptor
from textkeep.lightning_modules.objectives.loss_term import LossTerm
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
    check_strategy_setting(Namespace(class_path="textkeep.lightning_modules.FSDP2"))
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


class UnknownTuning(AdaptorOnly):
    """One that does not say whether it works in parts, as whoever derives from ``Tuning`` may leave it out."""

    needs_whole = Tuning.needs_whole


class UnknownEar(EncoderAdaptor):
    needs_whole = Ear.needs_whole


class UnknownTerm(AnswerCrossEntropy):
    needs_whole = LossTerm.needs_whole


WITH_WHOLE_WEIGHTS: dict[str, dict[str, Any]] = {
    "UnknownTuning": {"tuning": UnknownTuning()},
    "UnknownTerm": {"objectives": [UnknownTerm()]},
    "UnknownEar": {"ear": UnknownEar()},
    "model.base": {"base": ...},
    "DepthUpScaling": {"tuning": DepthUpScaling()},
    "OPLoRA": {"tuning": OPLoRA(k=2)},
    "LoRA with PiSSA": {"tuning": LoRA(start=PiSSA())},
    "CachedTeacher": {"objectives": [AnswerCrossEntropy(), TextTwinDistillation(teacher=CachedTeacher("x"))]},
    "RollBack": {"callbacks": [TextBudget(0.1)]},
    "RollBackToCheckpoint": {"callbacks": [TextBudget(0.1, actions=[StopAtBudget(), RollBackToCheckpoint()])]},
    "WeightChange": {"callbacks": [WeightChange()]},
    "SubspaceOverlap": {"callbacks": [SubspaceOverlap()]},
    "data.feature_cache": {"data": {"feature_cache": "x"}},
}


@pytest.mark.parametrize("name", WITH_WHOLE_WEIGHTS)
def test_what_needs_whole_weights_is_refused_before_ranks_share_them_out(name: str, folders: tuple[Path, Path]) -> None:
    options = dict(WITH_WHOLE_WEIGHTS[name])
    callbacks, data = options.pop("callbacks", []), options.pop("data", {})
    options |= {"base": str(folders[0])} if "base" in options else {}
    model = SpeechLLM(str(folders[0]), WhisperEncoder(str(folders[1])), ConcatMLP(5, 16), **options)
    settings: dict[str, Any] = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False}
    trainer = Trainer(strategy=FSDP2(), devices=2, callbacks=callbacks, **settings)
    trainer.datamodule = SpeechTextData("no/such.jsonl", **data)  # type: ignore[attr-defined]
    model.trainer = trainer
    with pytest.raises(ValueError, match=f"^trainer.strategy: {name} is not supported with FSDP2; allowed: ddp"):
        model.configure_callbacks()
    alone = Trainer(devices=1, callbacks=callbacks, **settings)
    model.trainer = alone
    model.configure_callbacks()


def test_whatever_is_not_refused_is_shown_to_work() -> None:
    """Two ranks are held against one process for each tuning and objective that FSDP2 takes."""
    files = Files("llm", "whisper", "manifest", "text", "fisher", "large", "misfit")
    settings = [cell.model(files) for cell in CELLS.values()]
    shown = {type(options["tuning"]) for options in settings}
    shown |= {type(term) for options in settings for term in options.get("objectives", [])} | {AnswerCrossEntropy}
    public = [getattr(lightning_modules, name) for name in lightning_modules.__all__]
    parts = [kind for kind in public if isinstance(kind, type) and issubclass(kind, Tuning | LossTerm)]
    unknown = {Tuning.needs_whole, LossTerm.needs_whole}
    by_name = {type(options["tuning"]) for options in WITH_WHOLE_WEIGHTS.values() if "tuning" in options}
    assert QLoRA.__new__(QLoRA).needs_whole() == "QLoRA"  # it is made with bitsandbytes alone
    by_name.add(QLoRA)
    assert not [kind for kind in parts if kind not in shown | by_name and kind.needs_whole not in unknown]


def test_replicas_that_do_not_divide_the_ranks_are_refused() -> None:
    with pytest.raises(ValueError, match=r"FSDP2\.replicas: 0 \(allowed: 1 or more\)"):
        FSDP2(replicas=0)
    strategy = FSDP2(replicas=3)
    strategy.parallel_devices = 2 * [torch.device("cpu")]
    with pytest.raises(ValueError, match=r"FSDP2\.replicas: 3 \(allowed: what divides the number of ranks, 2\)"):
        strategy.setup_environment()
