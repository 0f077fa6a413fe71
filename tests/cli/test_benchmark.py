"""``textkeep benchmark``: what lm-eval gets to generate with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from textkeep.cli.benchmark import main
from textkeep.evaluation import text_benchmarks
from textkeep.inference import benchmarking


def test_answers_are_greedy_and_may_end_as_the_chat_template_ends_them(
    tiny_llm_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "llm"
    shutil.copytree(tiny_llm_dir, folder)
    asked = {"eos_token_id": 0, "repetition_penalty": 1.1}
    (folder / "generation_config.json").write_text(json.dumps(asked))
    met: list[Any] = []

    def benchmarks(llm: Any, tokenizer: Any, *_: Any) -> text_benchmarks.BenchmarkScores:
        met.append((llm.generation_config, tokenizer.convert_tokens_to_ids("<|im_end|>")))
        return text_benchmarks.BenchmarkScores()

    monkeypatch.setattr(benchmarking, "run_benchmarks", benchmarks)
    assert main([str(folder), "--device", "cpu", "--json"]) == 0
    config, end = met[0]
    assert (config.repetition_penalty, config.do_sample, config.eos_token_id) == (None, False, [0, end])
