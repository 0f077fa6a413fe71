"""OPLoRA: the projector by hand, the paper's own parametrisation as the oracle, rho_k."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.lora_models import build
from tests.support.speech_batches import make_batch
from tests.support.speech_run import make_data, make_trainer
from textkeep.callbacks import SubspaceOverlap
from textkeep.importance.subspace import interference, top_subspace
from textkeep.lightning_modules import FullFineTuning, LoRA, OPLoRA, PiSSA, SpeechLLM, SpeechPositions
from textkeep.lightning_modules.llm.lora_layers import lora_layers


@pytest.fixture
def folders(tiny_llm_dir: Path, tiny_whisper_dir: Path) -> tuple[Path, Path]:
    return tiny_llm_dir, tiny_whisper_dir


def step(model: SpeechLLM, optimizer: torch.optim.Optimizer, clips: list[int | None]) -> None:
    optimizer.zero_grad()
    model.answer_losses(make_batch(model, clips))[0].sum().backward()
    model.tuning.edit_gradients(model.llm)
    optimizer.step()


def updates(model: SpeechLLM) -> dict[str, torch.Tensor]:
    return {name: layer.get_delta_weight("default").detach() for name, layer in lora_layers(model.llm).items()}


@pytest.mark.parametrize("shape", [(40, 24), (24, 40), (24, 24)])
def test_top_subspace_equals_the_svd(shape: tuple[int, int]) -> None:
    weight = torch.randn(shape)
    left, right = top_subspace(weight, 5)
    u, s, v = torch.linalg.svd(weight.double(), full_matrices=False)
    for found, expected in ((left, u[:, :5]), (right, v[:5].T)):
        torch.testing.assert_close((found @ found.T).double(), expected @ expected.T, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found.T @ found, torch.eye(5), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close((left.T @ weight @ right).double(), s[:5].diag(), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="k is 24, but must be at least 1 and less than 24"):
        top_subspace(weight, 24)


def test_rho_by_hand() -> None:
    left = torch.eye(4)[:, :2]
    update = torch.tensor([[1.0, 0, 0], [0, 2, 0], [0, 0, 3], [0, 0, 0]])
    assert interference(update, left) == pytest.approx(5 / 14)
    assert interference(torch.zeros(4, 3), left) == 0.0


def test_real_steps_leave_the_strongest_directions_alone(folders: tuple[Path, Path]) -> None:
    model = build(OPLoRA(k=4, r=3), *folders).train()
    model.tuning.initialize(model)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.02, weight_decay=0.1)
    model.tuning.attach_to_optimizer(model.llm, optimizer)
    for _ in range(4):
        step(model, optimizer, [40, None, 73])
    for name, update in updates(model).items():
        layer = model.llm.get_submodule(name)
        weight = layer.get_base_layer().weight.detach().double()
        u, s, v = torch.linalg.svd(weight, full_matrices=False)
        size = update.norm()
        assert size > 1e-3
        assert (u[:, :4].T @ update.double()).norm() < 1e-5 * size
        assert (update.double() @ v[:4].T).norm() < 1e-5 * size
        torch.testing.assert_close((weight + update) @ v[:4].T, u[:, :4] * s[:4], rtol=1e-4, atol=1e-5)


def test_it_learns_what_the_papers_parametrisation_learns(folders: tuple[Path, Path]) -> None:
    """The oracle: (I - UU') s B A (I - VV') in the forward pass, free A and B, autograd, AdamW."""
    model = build(OPLoRA(k=4, r=3), *folders).train()
    free = build(LoRA(r=3), *folders).train()
    free.load_state_dict({n: t for n, t in model.state_dict().items() if "protected" not in n})
    model.tuning.initialize(model)
    optimizers = []
    for each in (model, free):
        parameters = [p for p in each.parameters() if p.requires_grad]
        optimizers.append(torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.1))
    model.tuning.attach_to_optimizer(model.llm, optimizers[0])
    complements: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    for name, layer in lora_layers(free.llm).items():
        u, _, v = torch.linalg.svd(layer.get_base_layer().weight.detach(), full_matrices=False)
        left = torch.eye(layer.out_features) - u[:, :4] @ u[:, :4].T
        right = torch.eye(layer.in_features) - v[:4].T @ v[:4]
        complements[name] = left, right
        layer.lora_A["default"].register_forward_pre_hook(lambda m, args, p=right: (args[0] @ p,))
        layer.lora_B["default"].register_forward_hook(lambda m, args, out, p=left: out @ p)
    for _ in range(5):
        for each, optimizer in zip((model, free), optimizers, strict=True):
            step(each, optimizer, [40, None, 73])
    expected = {name: complements[name][0] @ u @ complements[name][1] for name, u in updates(free).items()}
    for name, update in updates(model).items():
        torch.testing.assert_close(update, expected[name], rtol=1e-2, atol=2e-5)


def test_rho_of_each_strategy(folders: tuple[Path, Path], tmp_path: Path) -> None:
    found = {}
    strategies = {
        "plain": LoRA(r=3),
        "gated": LoRA(r=3, gate=SpeechPositions()),
        "orthogonal": OPLoRA(k=4, r=3),
        "full": FullFineTuning(),
    }
    for name, tuning in strategies.items():
        overlap = SubspaceOverlap(k=4)
        model = build(tuning, *folders, optimizer=lambda g: torch.optim.AdamW(g, lr=0.01))
        data = make_data(tmp_path / "data")
        make_trainer(tmp_path / name, [overlap], max_steps=3, max_epochs=-1, val_check_interval=2).fit(model, data)
        found[name] = overlap.measure(model)
    for name in ("plain", "gated", "full"):
        assert 0.01 < found[name]["subspace/rho_k"] < 1
    assert found["orthogonal"]["subspace/rho_k"] < 1e-9
    sizes = [32, 16, 16, 32, 64, 64, 32]  # the rows of q, k, v, o, gate, up, down
    assert found["plain"]["subspace/rho_k_random"] == pytest.approx(sum(4 / n for n in sizes) / 7)
    assert "subspace/rho_k" in (tmp_path / "plain/metrics.csv").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k is 0, but must be at least 1"),
        ({"use_dora": True}, "use_dora rescales the rows of the whole weight"),
        ({"start": PiSSA()}, "PiSSA trains what the weight is strongest in"),
    ],
)
def test_contradictions_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OPLoRA(**options)


def test_more_directions_than_a_matrix_has_are_refused(folders: tuple[Path, Path]) -> None:
    with pytest.raises(ValueError, match=r"k is 16, but .*k_proj has only 16 directions"):
        build(OPLoRA(k=16), *folders)


def test_the_directions_travel_in_checkpoints(folders: tuple[Path, Path]) -> None:
    model = build(OPLoRA(k=4), *folders)
    model.tuning.initialize(model)
    checkpoint: dict[str, Any] = {"state_dict": dict(model.state_dict())}
    model.on_save_checkpoint(checkpoint)
    again = build(OPLoRA(k=4), *folders)
    again.on_load_checkpoint(checkpoint)
    again.load_state_dict(checkpoint["state_dict"], strict=False)
    assert again.tuning.initialize(again) == []
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
