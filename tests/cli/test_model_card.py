"""``textkeep card MODEL --base BASE``: each figure against a computation by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoModelForMultimodalLM, AutoProcessor, AutoTokenizer

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


@torch.no_grad()
def misalignment(models: Path) -> float:
    """KL(reading || hearing) at the answers' tokens, by the audio LLM and its processor as transformers has them."""
    whole = AutoModelForMultimodalLM.from_pretrained(models / "audio", dtype=torch.float32)
    processor = AutoProcessor.from_pretrained(models / "audio")
    kl = tokens = 0.0
    for line in map(json.loads, (models / "facts.jsonl").read_text().splitlines()):
        answer = f"{line['answers'][0]}<|im_end|>"
        count = len(processor.tokenizer(answer, add_special_tokens=False)["input_ids"])
        sound, read = [{"type": "audio", "audio": "q.wav"}], []
        instruction = [{"type": "text", "text": "\nPlease directly answer the questions in the user's speech."}]
        for content in (line["question"], sound + instruction):
            turn = [{"role": "user", "content": content}]
            text = processor.tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False) + answer
            clip = [] if isinstance(content, str) else [soundfile.read(models / line["audio"], dtype="float32")[0]]
            inputs = processor(text=[text], audio=clip or None, return_tensors="pt")
            read.append(whole(**inputs).logits[0, -1 - count : -1].double().log_softmax(-1))
        kl += float((read[0].exp() * (read[0] - read[1])).sum())
        tokens += count
    return kl / tokens


def test_each_figure_by_hand(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    questions = ["--questions", str(models / "facts.jsonl"), "--limit", "6", "--batch-size", "4"]
    assert main(words(models, "audio", *questions, "-o", str(tmp_path), "--fail-if", "forgetting/kl > 9")) == 0
    told = capsys.readouterr()
    assert "cannot be asked by voice" not in told.err
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
    shift = card["figures"]["shift/text"]
    assert shift["low"] <= shift["value"] <= shift["high"]
    assert "without noise (0." in shift["on"]
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
    assert {"text_accuracy", "speech_accuracy"} <= figures.keys()
    assert figures["misalignment/kl"] == pytest.approx(misalignment(models), rel=1e-5)
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


@pytest.mark.slow  # lm-eval takes seconds to be imported
def test_tasks_of_lm_eval_of_both(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A task of ten lines of one's own: the likelihood of each line by hand."""
    (tmp_path / "lines.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in PASSAGES))
    task = {
        "task": "lines",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "lines.jsonl")}},
        "test_split": "test",
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [{"metric": "byte_perplexity"}],
    }
    (tmp_path / "lines.yaml").write_text(yaml.safe_dump(task))
    more = [
        "--choices",
        "none",
        "--tasks",
        str(tmp_path / "lines.yaml"),
        "--examples",
        "2",
        "-o",
        str(tmp_path / "out"),
    ]
    capsys.readouterr()
    assert main(words(models, "audio", *more)) == 0
    assert "lm-eval/base/lines/byte_perplexity" in capsys.readouterr().out
    figures = json.loads((tmp_path / "out" / "card.json").read_text())["figures"]
    tokenizer = AutoTokenizer.from_pretrained(models / "base")
    for name, prefix in (("audio", ""), ("base", "base/")):
        llm, nats = open_causal_lm(str(models / name), torch.float32), 0.0
        for passage in PASSAGES:
            ids = tokenizer(passage)["input_ids"]
            nats -= float(logits(llm, [tokenizer.eos_token_id, *ids])[range(len(ids)), ids].sum())
        size = sum(len(passage.encode()) for passage in PASSAGES)
        assert figures[f"lm-eval/{prefix}lines/byte_perplexity"]["value"] == pytest.approx(
            math.exp(nats / size), rel=1e-5
        )


def test_what_goes_only_with_a_base_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["card", str(tmp_path), "--choices", "none"]) == 2
    assert "a run's figures are those that it holds; --choices goes with --base" in capsys.readouterr().err
