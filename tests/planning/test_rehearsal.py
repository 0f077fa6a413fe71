"""A rehearsal against the same work with weights and data, and against closed forms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from benchmarks.live_memory import LiveMemory
from textkeep.callbacks import ImportanceTracker
from textkeep.datamodules import SpeechTextData
from textkeep.datamodules.probes import Probe
from textkeep.foundation.errors import UserError
from textkeep.lightning_modules import EWC, FullFineTuning, LoRA, SpeechLLM, TextTwinDistillation, Tuning
from textkeep.lightning_modules.ears.adaptors import ConcatMLP
from textkeep.lightning_modules.ears.encoders import WhisperEncoder
from textkeep.planning import Question, TrainerSettings
from textkeep.planning.meter import ACTIVATIONS, GRADIENTS, OPTIMIZER, STRENGTHS, TEACHER, WEIGHTS
from textkeep.planning.question import Batches
from textkeep.planning.rehearsal import BUCKETS, Rehearsal
from textkeep.planning.stepping import Stepping

PLAIN = TrainerSettings("32-true", 1, 1.0, gpu=False)
QUESTION = Question(1.0, 6, 5)


@pytest.fixture
def parts(tiny_llm_dir: Path, tiny_whisper_dir: Path) -> Any:
    """Makes models and data of the same settings."""

    def make(tuning: Tuning | None = None, modality: str = "speech", **model: Any) -> tuple[SpeechLLM, SpeechTextData]:
        encoder, adaptor = WhisperEncoder(str(tiny_whisper_dir)), ConcatMLP(stack=5, hidden=32)
        llm = SpeechLLM(str(tiny_llm_dir), encoder, adaptor, tuning, **model)
        probes = {"text": Probe("spoken-facts/general", examples=4)}
        data = SpeechTextData(tokens_per_batch=300, train_modalities=modality, probes=probes)  # type: ignore[arg-type]
        return llm, data

    return make


def rehearsed(parts: Any, settings: TrainerSettings = PLAIN, callbacks: list[Callback] | None = None, ranks: int = 1):
    return Rehearsal(*parts, callbacks or [], settings, QUESTION, ranks).run()


def real_peaks(parts: Any, settings: TrainerSettings) -> tuple[int, int]:
    """Most bytes of tensors during a batch and during the optimizer's step, with weights and data, beyond the batch."""
    model, data = parts
    with settings.weights():
        model.configure_model()
        model.to(settings.dtype)
    data.connect(model.front_end)
    batch = Batches(data, QUESTION).training(Batches(data, QUESTION).kinds()[0])
    stepping = Stepping(model, settings)
    stepping.batch(batch)
    stepping.step()
    stepping.forget()
    static = [*model.parameters(), *model.buffers(), *stepping.state]
    resting = sum({t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in static}.values())
    with LiveMemory([*static, *(v for v in vars(batch).values() if isinstance(v, torch.Tensor))]) as memory:
        stepping.batch(batch)
        forward = memory.peak
        memory.peak = memory.live
        stepping.step()
    return resting + forward, resting + memory.peak


@pytest.mark.parametrize(
    ("tuning", "options", "precision"),
    [
        (FullFineTuning(), {}, "32-true"),
        (LoRA(), {}, "32-true"),
        (FullFineTuning(), {"gradient_checkpointing": True}, "32-true"),
        (FullFineTuning(), {}, "bf16-mixed"),
        (LoRA(), {}, "bf16-true"),
    ],
    ids=["full", "lora", "checkpointed", "mixed", "true"],
)
def test_memory_is_that_of_the_same_work_with_data(
    parts: Any, tuning: Tuning, options: dict[str, Any], precision: str
) -> None:
    settings = TrainerSettings(precision, 1, 1.0, gpu=False)
    found = rehearsed(parts(tuning, **options), settings)
    batch, step = (moment.total for moment in found.moments[:2])
    real_batch, real_step = real_peaks(parts(tuning, **options), settings)
    assert batch == pytest.approx(real_batch, rel=0.02)
    assert step == pytest.approx(real_step, rel=0.02)


def test_what_is_there_for_good_is_counted_weight_by_weight(parts: Any) -> None:
    found = rehearsed(parts())
    hidden, inner, layers, rows = 32, 64, 2, 400
    llm = rows * hidden + layers * (hidden * (32 + 16 + 16 + 32 + 3 * inner) + 2 * hidden) + hidden
    adaptor = 5 * 32 * 32 + 32 + 32 * hidden + hidden
    assert found.sizes.parameters["adaptor"] == (adaptor, adaptor)
    trained, every = found.sizes.parameters["llm"]
    assert trained == every
    rows = (every - (llm - rows * hidden)) // hidden
    assert every == llm + (rows - 400) * hidden
    assert 250 < rows <= 400, "the vocabulary's size"
    assert found.sizes.parameters["encoder"][0] == 0
    assert found.sizes.gradients == found.sizes.trained == 4 * (trained + adaptor)
    assert found.sizes.optimizer == pytest.approx(2 * found.sizes.trained, rel=0.01)
    assert found.moments[-3].parts[OPTIMIZER] == found.sizes.optimizer


def test_operations_are_six_a_weight_and_token(parts: Any) -> None:
    """Text alone: the matrices of the blocks at every position, the head where answers are predicted."""
    found = rehearsed(parts(modality="text"))
    moment = found.moments[0]
    rows, length = moment.rows, moment.positions // moment.rows
    blocks = 2 * 32 * (32 + 16 + 16 + 32 + 3 * 64)
    vocabulary = (found.sizes.parameters["llm"][1] - blocks - 5 * 32) // 32
    linear = 6 * moment.positions * blocks
    attention = 2 * rows * 4 * length**2 * 8 * (4 + 10)  # 2 products forward, 5 backward, 2 operations each
    predicted = (moment.flops - linear - attention) / (6 * rows * vocabulary * 32)
    assert 5 <= predicted <= 30, "positions of the answer, padding and end"
    assert predicted == pytest.approx(round(predicted), abs=0.01)


def test_lora_has_gradients_of_its_own_weights_alone(parts: Any) -> None:
    full, lora = rehearsed(parts()), rehearsed(parts(LoRA()))
    assert lora.sizes.gradients < 0.5 * full.sizes.gradients
    assert lora.moments[0].parts[WEIGHTS] > full.moments[0].parts[WEIGHTS]


def test_accumulation_keeps_gradients_and_ddp_copies_them(parts: Any) -> None:
    one = rehearsed(parts())
    more = rehearsed(parts(), TrainerSettings("32-true", 4, 1.0, gpu=False), ranks=8)
    assert one.moments[0].total < more.moments[0].total - more.sizes.gradients
    assert {moment.parts[BUCKETS] for moment in more.moments} == {more.sizes.gradients}
    assert all(BUCKETS not in moment.parts for moment in one.moments)
    assert more.moments[0].parts[GRADIENTS] == more.sizes.gradients


def test_gpus_take_the_step_of_a_group_at_once(parts: Any) -> None:
    """torch's default there keeps a copy of all of a group's moments; each layer is a group, so it is a small one."""
    settings = TrainerSettings("32-true", 1, None, gpu=True)
    there = rehearsed(parts(), settings).moments[1]
    assert there.parts[ACTIVATIONS] < there.parts[GRADIENTS]
    assert there.total == pytest.approx(real_peaks(parts(), settings)[1], rel=0.001)


def test_teachers_and_fisher_maps_stand_beside_the_model(parts: Any) -> None:
    found = rehearsed(parts(objectives=[TextTwinDistillation(), EWC("not/measured/yet")]))
    llm = 4 * found.sizes.parameters["llm"][1]
    assert found.moments[0].parts[TEACHER] == pytest.approx(llm, rel=0.01)
    assert found.moments[0].parts[STRENGTHS] == 4 * 2 * 32 * (32 + 16 + 16 + 32 + 3 * 64)
    lora = rehearsed(parts(LoRA(), objectives=[TextTwinDistillation()]))
    assert TEACHER not in lora.moments[0].parts, "the model with LoRA off"


def test_evaluation_and_importance_are_moments_of_their_own(parts: Any) -> None:
    found = rehearsed(parts(), callbacks=[ImportanceTracker(top_fraction=0.01)])
    names = [moment.name for moment in found.moments]
    assert found.left_out == []
    assert names[2:] == ["an evaluation", "writing answers", "importance, text"]
    maps = next(size for label, size in found.moments[-1].parts.items() if label.startswith("importance"))
    assert maps == 2 * 4 * 2 * 32 * (32 + 16 + 16 + 32 + 3 * 64), "taylor and fisher, a float32 a weight"
    assert found.moments[2].positions > 3 * found.moments[0].positions, "four times the budget of training"


def test_no_weights_are_read(parts: Any, tmp_path: Path) -> None:
    model, data = parts()
    for source, attribute in ((model.llm_source, "llm"), (model.encoder.source, "encoder")):
        folder = tmp_path / attribute
        folder.mkdir()
        for file in Path(source).iterdir():
            if file.suffix != ".safetensors":
                (folder / file.name).write_bytes(file.read_bytes())
    model.llm_source, model.encoder.source = str(tmp_path / "llm"), str(tmp_path / "encoder")
    assert rehearsed((model, data)).moments


def test_a_row_over_the_budget_is_said(parts: Any) -> None:
    model, data = parts()
    with pytest.raises(ValueError, match=r"allowed: at most tokens_per_batch = 300"):
        Rehearsal(model, data, [], PLAIN, Question(20.0, 200, 200), 1).run()


def test_a_step_that_cannot_be_followed_is_said(parts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = parts()

    def depends_on_values(*_: Any) -> None:
        torch.randn(3).nonzero()

    monkeypatch.setattr(model.tuning, "edit_gradients", depends_on_values)
    with pytest.raises(UserError, match="cannot be followed without data"):
        rehearsed((model, data))
