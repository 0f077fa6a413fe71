"""``textkeep card MODEL --base BASE``: each figure against a computation by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.support.measured_runs import MeasuredRun
from tests.support.two_models import write_two_models
from textkeep.cli.main import main
from textkeep.inference import load, read_examples
from textkeep.lightning_modules.llm.opening import open_causal_lm

PASSAGES = [f"The river number {i} runs to the sea, {'and on ' * i}past Lima." for i in range(6)]
CHOICES = [["Lima", "Rome", "user"], ["a", "capital of Peru", "b"], ["the", "What", "Peru is"]]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_two_models(tmp_path_factory.mktemp("models"))
    (folder / "text.txt").write_text("\n\n".join(PASSAGES))
    lines = [
        {"id": f"c{i}", "question": f"Which {i}?", "answers": [options[i]], "choices": options, "gold": i}
        for i, options in enumerate(CHOICES)
    ]
    (folder / "choices.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def words(models: Path, model: str, *more: str) -> list[str]:
    data = ["--text", str(models / "text.txt"), "--choices", str(models / "choices.jsonl"), "--device", "cpu"]
    return ["card", str(models / model), "--base", str(models / "base"), *data, *more]


@torch.no_grad()
def logits(model: Any, ids: list[int]) -> torch.Tensor:
    return model(input_ids=torch.tensor([ids])).logits[0, :-1].double().log_softmax(-1)


def test_each_figure_by_hand(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    questions = ["--questions", str(models / "facts.jsonl"), "--limit", "6", "--batch-size", "4"]
    assert main(words(models, "audio", *questions, "-o", str(tmp_path), "--fail-if", "forgetting/kl > 9")) == 0
    told = capsys.readouterr()
    assert "cannot be asked by voice here: the card is of its text alone" in told.err
    assert told.out == (tmp_path / "card.md").read_text() + "\n"
    assert "| Plain text: rise of the loss |" in told.out
    assert "| choices: change against the untouched LLM |" in told.out
    assert "Lineage: " in told.out
    card = json.loads((tmp_path / "card.json").read_text())
    figures = {name: fact["value"] for name, fact in card["figures"].items()}
    base = AutoModelForCausalLM.from_pretrained(models / "base", dtype=torch.float32)
    tuned = open_causal_lm(str(models / "audio"), torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(models / "base")
    rise = kl = tokens = 0.0
    for passage in PASSAGES:
        ids = tokenizer(passage)["input_ids"]
        first, second = logits(base, ids), logits(tuned, ids)
        rows, targets = range(len(ids) - 1), ids[1:]
        rise += float((first[rows, targets] - second[rows, targets]).sum())
        kl += float((first.exp() * (first - second)).sum())
        tokens += len(targets)
    assert figures["text_loss_increase"] == pytest.approx(rise / tokens, abs=1e-6)
    assert figures["text_loss_increase/text"] == figures["text_loss_increase"]
    assert figures["forgetting/kl"] == pytest.approx(kl / tokens, rel=1e-4)
    assert figures["shift/text"] > 0
    right = []
    for number, options in enumerate(CHOICES):
        chat = [{"role": "user", "content": f"Which {number}?"}]
        asked = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        scores = []
        for option in options:
            begun, ids = (
                tokenizer(text, add_special_tokens=False)["input_ids"] for text in (asked, f"{asked}{option}<|im_end|>")
            )
            found = logits(tuned, ids)
            scores.append(sum(float(found[i - 1, ids[i]]) for i in range(len(begun), len(ids))))
        right.append(scores.index(max(scores)) == number)
    assert figures["choices/accuracy"] == pytest.approx(sum(right) / len(right))
    assert "text_accuracy" in figures
    assert "speech_accuracy" not in figures
    assert card["lineage"]["verdict"] in ("parent", "relative")


def test_a_model_has_kept_all_of_itself(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    limit = "text_loss_increase < 0.5"
    assert main(words(models, "base", "--fail-if", limit, "--fail-if", "shift/text > 0.5")) == 1
    told = capsys.readouterr()
    assert f"textkeep card: {limit}: it is 0 [0, 0]" in told.err
    assert "Lineage: parent" in told.out
    assert "| Plain text: rise of the loss | 0 [0, 0] |" in told.out
    assert "McNemar p 1" in told.out


def test_a_run_is_measured_against_its_base_and_asked_by_voice(
    models: Path,
    measured_run: MeasuredRun,
    talkative_llm_dir: Path,
    tiny_manifest: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = measured_run("lora")
    data = ["--text", str(models / "text.txt"), "--choices", "none", "--questions", str(tiny_manifest), "--limit", "4"]
    capsys.readouterr()
    assert main(["card", str(run), "--base", str(talkative_llm_dir), *data, "--device", "cpu"]) == 0
    told = capsys.readouterr()
    assert "| The same, spoken |" in told.out
    assert "| Hearing gap" not in told.out
    assert "cannot be asked by voice" not in told.err
    chosen = read_examples(str(models / "text.txt"), "text", 4)
    before, after = (load(model, "cpu").summed_losses(chosen) for model in (talkative_llm_dir, run))
    rise = sum(b[1] - a[1] for a, b in zip(before, after, strict=True)) / sum(a[2] for a in before)
    assert f"| Plain text: rise of the loss | {rise:+.3g} [" in told.out
    assert main(["card", str(measured_run("turns")), "--base", str(talkative_llm_dir), *data, "--device", "cpu"]) == 2
    assert "adapters that act on some positions only" in capsys.readouterr().err


def test_what_goes_only_with_a_base_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["card", str(tmp_path), "--choices", "none"]) == 2
    assert "a run's figures are those that it holds; --choices goes with --base" in capsys.readouterr().err
