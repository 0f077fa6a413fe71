"""Plans of ranks that share the weights out (FSDP2), against what can be said by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from torch import distributed

from textkeep.cli.main import main
from textkeep.datamodules import SpeechTextData
from textkeep.foundation.errors import UserError
from textkeep.lightning_modules import FullFineTuning, SpeechLLM
from textkeep.lightning_modules.ears.adaptors import ConcatMLP
from textkeep.lightning_modules.ears.encoders import WhisperEncoder
from textkeep.planning import Question, TrainerSettings
from textkeep.planning.meter import ACTIVATIONS, GATHERED, GRADIENTS, OPTIMIZER, WEIGHTS
from textkeep.planning.pretended_ranks import pretended_ranks
from textkeep.planning.rehearsal import BUCKETS, Rehearsal

PROBES = '{"text": {"source": "spoken-facts/general", "modality": "text", "examples": 4}}'
BLOCK = 32 * (32 + 16 + 16 + 32 + 3 * 64) + 2 * 32
"""Weights of a block of the tiny LLM: four projections, three of the MLP, two norms."""
ENCODER_BLOCK = 4 * 32 * 32 + 3 * 32 + 2 * 32 * 64 + 64 + 32 + 4 * 32
"""Of the tiny Whisper: four projections, three of them with a bias, two matrices with biases, two norms."""


def rehearsal(llm: Path, whisper: Path, ranks: int, replicas: int | None) -> Rehearsal:
    encoder, adaptor = WhisperEncoder(str(whisper)), ConcatMLP(5, 32)
    model = SpeechLLM(str(llm), encoder, adaptor, FullFineTuning(), gradient_checkpointing=True)
    data = SpeechTextData(tokens_per_batch=300)
    settings = TrainerSettings("32-true", 1, 1.0, gpu=True, replicas=replicas)
    return Rehearsal(model, data, [], settings, Question(1.0, 6, 5), ranks)


def test_each_rank_holds_its_part_and_gathers_what_computes(tiny_llm_dir: Path, tiny_whisper_dir: Path) -> None:
    with pretended_ranks(4, 1):
        found = rehearsal(tiny_llm_dir, tiny_whisper_dir, 4, 1).steps()
    alone = rehearsal(tiny_llm_dir, tiny_whisper_dir, 1, None).steps().moments[0]
    assert not distributed.is_initialized()
    counts = found.sizes.parameters.values()
    trained, every = 4 * sum(some for some, _ in counts), 4 * sum(count for _, count in counts)
    batch, step = found.moments
    assert batch.parts[WEIGHTS] == pytest.approx(every / 4, rel=0.002)
    assert found.sizes.gradients == step.parts[GRADIENTS] == pytest.approx(trained / 4, rel=0.002)
    assert batch.parts[OPTIMIZER] == pytest.approx(2 * trained / 4, rel=0.01)
    assert found.sizes.trained == trained, "a checkpoint holds all"
    # the root is gathered for the whole step, and one block at the peak; what is sent and received lies beside it
    root = every - 4 * 2 * (BLOCK + ENCODER_BLOCK)
    assert batch.parts[GATHERED] == pytest.approx(root + 4 * BLOCK, rel=0.002)
    assert 0 <= batch.parts[ACTIVATIONS] - alone.parts[ACTIVATIONS] <= 3 * 4 * BLOCK, "activations are not divided"
    assert batch.flops == alone.flops
    assert GATHERED not in step.parts
    assert BUCKETS not in {**batch.parts, **step.parts}


@pytest.mark.slow
def test_a_plan_of_replicas_in_half_precision(tiny_config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--gpus", 2, "--nodes", 2, "--seconds", 1, "--answer-tokens", 4, "--json")
    options += ("--trainer.callbacks+", "ImportanceTracker", "--data.probes", PROBES)
    strategy = ("--trainer.strategy", "FSDP2", "--trainer.strategy.init_args.replicas", 2)
    assert main(["plan", *map(str, (tiny_config, *options, *strategy, "--trainer.precision", "bf16-mixed"))]) == 0
    found = json.loads(capsys.readouterr().out)
    every = sum(part["all"] for part in found["parameters"].values())
    parts = {moment["name"]: moment["parts"] for moment in found["moments"]}
    assert found["trainer"]["replicas"] == 2
    assert found["machine"]["ranks"] == 4
    assert found["left_out"] == []
    assert parts["an evaluation"][WEIGHTS] == pytest.approx(4 * every / 2, rel=0.01), "in float32, by two ranks"
    for name in ("an evaluation", "writing answers", "importance, text"):
        assert parts[name][GATHERED] == pytest.approx(2 * every, rel=0.01), "all of it, in bfloat16"


@pytest.mark.parametrize(
    ("ranks", "replicas", "message"),
    [(1, 1, "got 1; allowed: --gpus 2 or more"), (6, 4, "allowed: what divides the number of ranks, 6")],
)
def test_ranks_that_cannot_share_are_refused(ranks: int, replicas: int, message: str) -> None:
    with pytest.raises(UserError, match=message), pretended_ranks(ranks, replicas):
        pass


def test_what_fsdp2_refuses_a_plan_refuses_too(tiny_config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--gpus", "2", "--trainer.strategy.class_path", "FSDP2")
    assert main(["plan", str(tiny_config), *words, "--trainer.callbacks+", "WeightChange"]) == 2
    assert main(["plan", str(tiny_config), *words, "--run"]) == 2
    assert main(["plan", str(tiny_config), "--trainer.strategy", "FSDP2"]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("textkeep: error")]
    assert "WeightChange is not supported with FSDP2" in errors[0]
    assert "--run measures one process" in errors[1]
    assert "allowed: {class_path: FSDP2}" in errors[2]
