"""Slow ones import lm-eval (6 s)."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM

from textkeep.evaluation import wilson_interval
from textkeep.evaluation.tasks.shipped import general_choices
from textkeep.evaluation.text_benchmarks import TASKS, BenchmarkScores, run_benchmarks

needs_lm_eval = pytest.mark.skipif(importlib.util.find_spec("lm_eval") is None, reason="the extra lm-eval")


def test_the_shipped_questions_have_four_different_options_and_one_right_one() -> None:
    rows = list(general_choices()["test"])
    assert len(rows) > 100
    for row in rows:
        assert len({*row["choices"]}) == len({*row["statements"]}) == 4
        assert row["choices"][row["gold"]] == row["answers"][0]
        assert row["statements"][row["gold"]] == row["target"]
        assert not {*row["answers"][1:]} & {*row["choices"]}
    places = [row["gold"] for row in rows]
    assert all(0.15 < places.count(i) / len(rows) < 0.35 for i in range(4))


def test_intervals_are_normal_ones() -> None:
    scores = BenchmarkScores({"t/acc": 0.5, "t/ppl": 9.0}, {"t/acc": 0.1})
    assert scores.intervals()["t/acc"] == pytest.approx((0.304, 0.696))
    assert scores.intervals()["t/ppl"] == (float("-inf"), float("inf"))


def test_intervals_of_shares_of_the_items_are_wilsons() -> None:
    """lm-eval's standard error of tasks where all items are right is 0."""
    values = {"t/acc": 1.0, "t/acc_norm": 0.75, "t/exact_match,strict": 0.0, "t/f1": 0.5, "group/acc": 0.6}
    scores = BenchmarkScores(values, dict.fromkeys(values, 0.01), items={"t": 4})
    found = scores.intervals()
    for key, right in (("t/acc", 4), ("t/acc_norm", 3), ("t/exact_match,strict", 0)):
        assert found[key] == pytest.approx(wilson_interval(right, 4)[1:])
    assert found["t/f1"] == pytest.approx((0.4804, 0.5196))
    assert found["group/acc"] == pytest.approx((0.5804, 0.6196))


@pytest.fixture(scope="module")
def tuned(tiny_llm_dir: Path) -> Any:
    """A language model with a LoRA adapter in it, as the tuning puts it there: its class stays."""
    from peft import LoraConfig, inject_adapter_in_model

    torch.manual_seed(1)
    llm = AutoModelForCausalLM.from_pretrained(tiny_llm_dir)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    tuned = inject_adapter_in_model(config, llm)
    with torch.no_grad():
        for name, weight in tuned.named_parameters():
            if "lora_" in name:  # so large that answers change
                weight.mul_(20)
    return tuned.eval()


def exported(tuned: Any, tokenizer: Any, folder: Path) -> Path:
    """The same model, adapters merged, as a user would export it."""
    state = {}
    for name, weight in tuned.state_dict().items():
        if "lora_" not in name:
            state[name.replace(".base_layer", "")] = weight.clone()
    for name, module in tuned.named_modules():
        if hasattr(module, "get_delta_weight"):
            state[f"{name}.weight"] += module.get_delta_weight("default").detach()
    plain = AutoModelForCausalLM.from_pretrained(tuned.config._name_or_path)
    plain.load_state_dict(state)
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.slow
@needs_lm_eval
def test_scores_equal_those_of_lm_eval_on_the_exported_folder(
    tuned: Any, tiny_tokenizer: Any, tiny_llm_dir: Path, tmp_path: Path
) -> None:
    import lm_eval
    from lm_eval.tasks import TaskManager

    generating = local_task(tmp_path)
    tasks = ["textkeep_general", "textkeep_general_sentences", str(generating)]
    ours = run_benchmarks(tuned, tiny_tokenizer, tasks, limit=40)
    folder = exported(tuned, tiny_tokenizer, tmp_path / "export")
    theirs = lm_eval.simple_evaluate(
        model="hf",
        model_args={"pretrained": str(folder), "dtype": "float32"},
        tasks=tasks,
        limit=40,
        batch_size=8,
        device="cpu",
        bootstrap_iters=1000,
        task_manager=TaskManager(include_path=str(TASKS)),
    )
    assert theirs is not None
    for task in ("textkeep_general", "textkeep_general_sentences"):
        for metric in ("acc", "acc_norm"):
            assert ours.values[f"{task}/{metric}"] == theirs["results"][task][f"{metric},none"]
            assert ours.errors[f"{task}/{metric}"] == theirs["results"][task][f"{metric}_stderr,none"]
    assert ours.values["my_words/exact_match"] == theirs["results"]["my_words"]["exact_match,none"]
    right = [sample["acc"] for sample in theirs["samples"]["textkeep_general"]]
    records = [record for record in ours.records if record.source == "textkeep_general"]
    assert [float(bool(record.correct)) for record in records] == right
    likelihoods = [[r[0] for r in sample["filtered_resps"]] for sample in theirs["samples"]["textkeep_general"]]
    assert [list(r.scores) for r in records] == [pytest.approx(scores, rel=1e-4) for scores in likelihoods]
    # The adapter matters: without it other items are right.
    untouched = run_benchmarks(AutoModelForCausalLM.from_pretrained(tiny_llm_dir), tiny_tokenizer, tasks[:1], limit=40)
    assert [r.correct for r in untouched.records] != [r.correct for r in records]


def local_task(folder: Path) -> Path:
    """A task of the user's own, that generates."""
    data = folder / "data.jsonl"
    data.write_text("".join(json.dumps({"q": f"Say {word}", "a": word}) + "\n" for word in ("red", "blue")))
    config = {
        "task": "my_words",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{q}}",
        "doc_to_target": "{{a}}",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 4},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }
    path = folder / "my_words.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.mark.slow
@needs_lm_eval
def test_an_unknown_task_is_named_with_its_like(tuned: Any, tiny_tokenizer: Any) -> None:
    with pytest.raises(ValueError, match=r"no task 'textkep_general' \(.*textkeep_general"):
        run_benchmarks(tuned, tiny_tokenizer, ["textkep_general"])
