"""``textkeep export`` of adapters: merged where that is the same model, beside the LLM where a gate forbids it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from peft import PeftModel
from transformers import AutoModelForCausalLM

from tests.support.speech_batches import make_batch
from textkeep.cli.main import main
from textkeep.lightning_modules import SpeechLLM
from textkeep.lightning_modules.llm.changes import LoRAChange
from textkeep.lightning_modules.llm.edits import change_of
from textkeep.lightning_modules.llm.lora_layers import lora_layers
from textkeep.lightning_modules.losses.answer_loss import cross_entropies, predict_answers

IDS = torch.tensor([[5, 6, 7, 8, 9]])
TUNINGS: dict[str, dict[str, Any]] = {
    "lora": {"r": 2},
    "dora": {"r": 2, "use_dora": True},
    "rslora": {"r": 2, "use_rslora": True},
    "pissa": {"r": 2, "start": {"class_path": "PiSSA"}},
    "positions": {"r": 2, "gate": {"class_path": "SpeechPositions"}},
    "turns": {"r": 2, "gate": {"class_path": "SpeechTurns"}},
}
GATED = ("positions", "turns")


def fit(kind: str, settings: dict[str, Any], folder: Path) -> Path:
    trainer = {**settings["trainer"], "default_root_dir": str(folder / "run"), "logger": False}
    rate = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.02}}
    tuning = {"class_path": "LoRA", "init_args": TUNINGS[kind]}
    model = {**settings["model"], "optimizer": rate, "tuning": tuning}
    (folder / "run.yaml").write_text(yaml.safe_dump({**settings, "trainer": trainer, "model": model}))
    assert main(["fit", "--config", str(folder / "run.yaml")]) == 0
    return folder / "run"


def logits(folder: Path) -> torch.Tensor:
    return AutoModelForCausalLM.from_pretrained(folder)(IDS).logits.detach()


@pytest.mark.parametrize("kind", ["lora", "dora", "rslora", "pissa"])
def test_merged_weights_compute_what_the_adapters_did(
    kind: str, tiny_settings: dict[str, Any], tmp_path: Path, tiny_llm_dir: Path
) -> None:
    run, out = fit(kind, tiny_settings, tmp_path), tmp_path / "out"
    assert main(["export", str(run), "-o", str(out)]) == 0
    model = SpeechLLM.from_run(run)
    torch.testing.assert_close(logits(out), model.llm(IDS).logits, rtol=1e-4, atol=1e-5)
    assert (logits(out) - logits(tiny_llm_dir)).abs().max() > 1e-3
    assert not (out / "adapter").exists()
    batch = make_batch(model, [40, None, 73])
    torch.testing.assert_close(model.answer_losses(batch)[0], SpeechLLM.from_run(out).answer_losses(batch)[0])
    assert main(["export", str(run), "-o", str(tmp_path / "base"), "--alpha", "0"]) == 0
    assert torch.equal(logits(tmp_path / "base"), logits(tiny_llm_dir))


def test_half_of_the_way_is_half_of_the_update(tiny_settings: dict[str, Any], tmp_path: Path) -> None:
    run = fit("lora", tiny_settings, tmp_path)
    scaled, mixed = SpeechLLM.from_run(run), SpeechLLM.from_run(run)
    for layer in lora_layers(scaled.llm).values():
        layer.scale_layer(0.5)
    change_of(mixed).apply(0.5)
    torch.testing.assert_close(mixed.llm(IDS).logits, scaled.llm(IDS).logits, rtol=1e-4, atol=1e-5)


def test_gated_adapters_that_begin_in_the_weight_are_refused(
    tiny_settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    TUNINGS["both"] = {**TUNINGS["turns"], **TUNINGS["pissa"]}
    run = fit("both", tiny_settings, tmp_path)
    capsys.readouterr()
    assert main(["export", str(run), "-o", str(tmp_path / "out")]) == 2
    assert "two a matrix: not supported" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", GATED)
def test_gated_adapters_lie_beside_the_untouched_llm(
    kind: str,
    tiny_settings: dict[str, Any],
    tmp_path: Path,
    tiny_llm_dir: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run, out = fit(kind, tiny_settings, tmp_path), tmp_path / "out"
    assert main(["export", str(run), "-o", str(out)]) == 0
    assert torch.equal(logits(out), logits(tiny_llm_dir))
    before, after = SpeechLLM.from_run(run), SpeechLLM.from_run(out)
    batch = make_batch(before, [40, None, 73])
    assert torch.equal(before.answer_losses(batch)[0], after.answer_losses(batch)[0])
    base = SpeechLLM.from_run(run)
    change_of(base).apply(0.0)
    assert not torch.equal(before.answer_losses(batch)[0], base.answer_losses(batch)[0])

    # peft reads its own format: without the gate, the adapters act everywhere
    peft = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(out), out / "adapter")
    with before.tuning.gate.open():
        torch.testing.assert_close(peft(input_ids=IDS).logits, before.llm(IDS).logits)
    assert (peft(input_ids=IDS).logits - logits(tiny_llm_dir)).abs().max() > 1e-3

    answers = []
    clip = Path(tiny_settings["data"]["train"][0]).parent / "0.wav"
    for source in (run, out):
        capsys.readouterr()
        assert main(["ask", str(source), "--audio", str(clip), "--text", "Who?"]) == 0
        answers.append(capsys.readouterr().out)
    assert answers[0] == answers[1]
    assert main(["test", "--config", str(run / "config.yaml"), "--ckpt_path", str(out)]) == 2
    assert "holds adapters" in capsys.readouterr().err


def test_the_scale_of_gated_adapters_comes_back_exactly(tiny_settings: dict[str, Any], tmp_path: Path) -> None:
    model = SpeechLLM.from_run(fit("turns", tiny_settings, tmp_path))
    batch = make_batch(model, [40, None, 73])
    tuned = model.answer_losses(batch)[0]
    change = change_of(model)
    assert isinstance(change, LoRAChange)
    untouched = cross_entropies(predict_answers(model.reference.copy(), **model.embed(batch)))[0]
    change.apply(0.0)
    assert torch.equal(model.answer_losses(batch)[0], untouched)
    change.apply(1.0, change.names)
    assert torch.equal(model.answer_losses(batch)[0], untouched)
    change.apply(1.0)
    assert torch.equal(model.answer_losses(batch)[0], tuned)
    with pytest.raises(ValueError, match=r"training did not move 'model\.norm\.weight'"):
        change.apply(1.0, ["model.norm.weight"])
