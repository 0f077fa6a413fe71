"""Types: what keeps its own, what is hashed and summed, what a loss scale does not touch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from tests.support.lora_models import wake
from tests.support.speech_batches import make_batch
from tests.support.speech_run import make_data, make_trainer
from textkeep.importance.changes import Changes
from textkeep.importance.weights import effective_weight
from textkeep.lightning_modules import (
    EWC,
    Adaptor,
    AnswerCrossEntropy,
    ConcatMLP,
    LoRA,
    OPLoRA,
    SpeechLLM,
    StackSwiGLU,
    StackTransformer,
    WhisperEncoder,
)
from textkeep.lightning_modules.llm.lora_layers import lora_layers
from textkeep.lightning_modules.losses.modality_losses import ModalityLosses
from textkeep.lightning_modules.precision import default_dtype
from textkeep.lightning_modules.saving.frozen_state import frozen_hash
from textkeep.lightning_modules.tuning import Tuning

from .test_weight_pulls import snapshot_of

TYPES = [torch.float64, torch.bfloat16]


def build(folders: tuple[Path, Path], dtype: torch.dtype, tuning: Tuning | None = None, **options: Any) -> SpeechLLM:
    """As Lightning builds it: with the type of the run as torch's default, then converted as a whole."""
    torch.manual_seed(0)
    adaptor = options.pop("adaptor", None) or ConcatMLP(stack=5, hidden=16)
    model = SpeechLLM(str(folders[0]), WhisperEncoder(str(folders[1])), adaptor, tuning, max_new_tokens=4, **options)
    with default_dtype(dtype):
        model.configure_model()
    return model.to(dtype)


@pytest.fixture
def folders(tiny_llm_dir: Path, tiny_whisper_dir: Path) -> tuple[Path, Path]:
    return tiny_llm_dir, tiny_whisper_dir


# ---------------------------------------------------------------------- what keeps its type


@pytest.mark.parametrize("dtype", TYPES)
def test_a_converted_model_computes_what_transformers_computes_in_that_type(
    dtype: torch.dtype, folders: tuple[Path, Path]
) -> None:
    ids = torch.arange(400)[None] % 300  # rotary frequencies in bfloat16 turn late positions by radians
    expected = AutoModelForCausalLM.from_pretrained(folders[0], dtype=dtype)(ids).logits
    plain, early = build(folders, dtype), build(folders, torch.float32).to(dtype)
    for model in (plain, early):
        assert {p.dtype for p in model.parameters()} == {dtype}
        assert torch.equal(model.llm(ids).logits, expected)


def test_what_was_loaded_in_another_type_keeps_it(folders: tuple[Path, Path]) -> None:
    model = build(folders, torch.bfloat16, OPLoRA(k=4, r=2))
    model.llm.model.norm.float()  # as transformers keeps routers, and norms of some families
    model.to(torch.bfloat16)
    kept = {name for name, p in model.named_parameters() if p.dtype == torch.float32}
    assert kept == {"llm.model.norm.weight"}
    assert all(layer.protected_left.dtype == torch.float32 for layer in lora_layers(model.llm).values())


def test_the_start_is_the_same_draw_at_every_precision(folders: tuple[Path, Path]) -> None:
    exact = build(folders, torch.float32, LoRA(r=2)).state_dict()
    for dtype in TYPES:
        for name, tensor in build(folders, dtype, LoRA(r=2)).state_dict().items():
            scaled = name.startswith("adaptor.output")  # to a norm that was measured in the type of the run
            tolerance = {"rtol": 1e-2, "atol": 1e-4} if scaled else {"rtol": 0, "atol": 0}
            torch.testing.assert_close(tensor, exact[name].to(dtype), msg=lambda m, n=name: f"{n}: {m}", **tolerance)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("adaptor", [StackSwiGLU(8, 16), StackTransformer(4, 12, 1, 2)], ids=lambda a: type(a).__name__)
def test_every_adaptor_takes_features_and_cached_frames(
    adaptor: Adaptor, dtype: torch.dtype, folders: tuple[Path, Path]
) -> None:
    model = build(folders, dtype, adaptor=type(adaptor)(**vars_of(adaptor)))
    for mode in (True, False):
        model.train(mode)
        batch = make_batch(model, [40, None, 73])
        losses, _ = model.answer_losses(batch)
        frames, lengths = model.encode_speech(batch.features, batch.feature_lengths)
        batch.features, batch.feature_lengths, batch.encoded = frames.transpose(1, 2).float(), lengths, True
        torch.testing.assert_close(model.answer_losses(batch)[0], losses, rtol=1e-6, atol=1e-6)
        assert losses.dtype == torch.promote_types(dtype, torch.float32)


def vars_of(adaptor: Adaptor) -> dict[str, Any]:
    """The arguments that an adaptor was built with."""
    return {key: value for key, value in vars(adaptor).items() if not key.startswith("_") and key != "training"}


# ---------------------------------------------------------------------- what is hashed, summed and subtracted


def test_the_hash_of_frozen_weights_is_that_of_earlier_checkpoints() -> None:
    state = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor([0.1, -2.0])}
    wanted = "874f2f32a021678156904319f2d3077d88da3280a748c46c32cc94809fa756ef"
    assert frozen_hash(state, {"a", "b"}) == wanted
    assert frozen_hash({name: tensor.double() for name, tensor in state.items()}, {"a", "b"}) == wanted


def test_validation_counts_beyond_256_tokens_in_half_precision() -> None:
    class Module(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.losses = ModalityLosses()

    losses = Module().to(torch.bfloat16).losses
    for step in range(100):
        losses.update(torch.tensor([10.0, 30.0 + step]), torch.tensor([7, 9]), ["text", "speech"])
    found = {name: value.item() for name, value in losses.compute().items()}
    assert found == {"speech": pytest.approx((3000 + 4950) / 900), "text": pytest.approx(10 / 7)}
    assert losses.compute() == {}


def test_a_small_update_of_half_precision_weights_is_not_rounded_away(folders: tuple[Path, Path]) -> None:
    model = wake(build(folders, torch.bfloat16, LoRA(r=4)))
    with torch.no_grad():
        for layer in lora_layers(model.llm).values():
            layer.lora_B["default"].weight.mul_(1e-3)
    base = AutoModelForCausalLM.from_pretrained(folders[0], dtype=torch.bfloat16)
    changes = Changes(base, model.llm)
    for name, layer in lora_layers(model.llm).items():
        down, up = (part["default"].weight.double() for part in (layer.lora_A, layer.lora_B))
        wanted = layer.scaling["default"] * up @ down
        found = effective_weight(layer).double() - layer.get_base_layer().weight.double()
        assert (found - wanted).norm() < 1e-3 * wanted.norm()
        assert (changes[f"{name}.weight"].double() - wanted).norm() < 1e-5 * wanted.norm()


# ---------------------------------------------------------------------- the loss scale


@pytest.mark.parametrize("fused", [True, False])
def test_a_pull_is_as_strong_under_a_loss_scale(fused: bool, folders: tuple[Path, Path], tmp_path: Path) -> None:
    snapshot = snapshot_of(AutoModelForCausalLM.from_pretrained(folders[0]), tmp_path / "fisher")

    def moved(plugins: list[Any]) -> Tensor:
        """How far the weights go in two steps in which the pull is the most of the gradient, clipped."""
        torch.manual_seed(0)
        objectives = [AnswerCrossEntropy(), EWC(str(snapshot), weight=1e4)]
        model = SpeechLLM(
            str(folders[0]),
            WhisperEncoder(str(folders[1])),
            ConcatMLP(stack=5, hidden=16),
            objectives=objectives,
            optimizer=lambda groups: torch.optim.SGD(groups, lr=0.3, fused=fused),
            lr_schedule="constant",
        )
        data = make_data(tmp_path / "data")
        options = {"max_steps": 3, "max_epochs": -1, "limit_val_batches": 0, "logger": False}
        make_trainer(tmp_path / "run", [], plugins=plugins, gradient_clip_val=0.5, **options).fit(model, data)
        base = AutoModelForCausalLM.from_pretrained(folders[0]).state_dict()
        return torch.cat([(t - base[n]).flatten() for n, t in model.llm.state_dict().items()])

    exact = moved([])
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    found = moved([MixedPrecision("16-mixed", "cpu", scaler)])
    assert (found - exact).norm() < 0.02 * exact.norm()


# ---------------------------------------------------------------------- what is refused


@pytest.fixture
def saved(folders: tuple[Path, Path], tmp_path: Path) -> tuple[Any, Path]:
    """A model of one step in bf16-true, and its checkpoint."""
    return fitted(folders, tmp_path, "bf16-true", 1, None)


def fitted(
    folders: tuple[Path, Path], folder: Path, precision: str, steps: int, checkpoint: Path | None
) -> tuple[Any, Path]:
    model = SpeechLLM(str(folders[0]), WhisperEncoder(str(folders[1])), ConcatMLP(5, 16))
    options: dict[str, Any] = {"max_steps": steps, "max_epochs": -1, "limit_val_batches": 0, "logger": False}
    trainer = make_trainer(folder / "run", [], precision=precision, **options)
    given = {"ckpt_path": str(checkpoint), "weights_only": False} if checkpoint else {}
    trainer.fit(model, make_data(folder / "data"), **given)
    path = folder / "saved.ckpt"
    trainer.save_checkpoint(path)
    return model, path


def test_going_on_in_another_precision_is_refused(saved: tuple[Any, Path], folders: Any, tmp_path: Path) -> None:
    message = r"trainer\.precision: the checkpoint's weights are bfloat16 and this model's float32; allowed: the prec"
    with pytest.raises(ValueError, match=message):
        fitted(folders, tmp_path, "32-true", 2, saved[1])
    trainer = make_trainer(tmp_path / "test", [], precision="32-true", logger=False)
    model = SpeechLLM(str(folders[0]), WhisperEncoder(str(folders[1])), ConcatMLP(5, 16))
    with pytest.raises(ValueError, match=message):
        trainer.validate(model, make_data(tmp_path / "data"), ckpt_path=str(saved[1]), weights_only=False)
