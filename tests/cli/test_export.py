"""``textkeep export``: what plain transformers, ``ask`` and ``SpeechLLM`` read of it, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.support.speech_batches import make_batch
from textkeep.cli.main import main
from textkeep.evaluation import read_predictions
from textkeep.importance import Snapshot
from textkeep.inference import load
from textkeep.lightning_modules import SpeechLLM
from textkeep.lightning_modules.saving.export_folder import read_manifest

IDS = torch.tensor([[5, 6, 7, 8, 9]])


@pytest.fixture(scope="module")
def base_llm_dir(tmp_path_factory: pytest.TempPathFactory, tiny_llm_dir: Path) -> Path:
    """The tiny LLM as a base model has it: ended by another token than its chat template's, sampled with a penalty."""
    folder = tmp_path_factory.mktemp("base") / "llm"
    shutil.copytree(tiny_llm_dir, folder)
    for name, change in (
        ("tokenizer_config.json", {"eos_token": "<|endoftext|>"}),
        ("generation_config.json", {"eos_token_id": 0, "do_sample": True, "repetition_penalty": 1.1}),
    ):
        (folder / name).write_text(json.dumps(json.loads((folder / name).read_text()) | change))
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_settings: dict, base_llm_dir: Path) -> Path:
    """A run of three steps, with prompts that are not the defaults."""
    import yaml

    folder = tmp_path_factory.mktemp("export")
    tiny_settings = {**tiny_settings, "model": {**tiny_settings["model"], "llm": str(base_llm_dir)}}
    trainer = {**tiny_settings["trainer"], "default_root_dir": str(folder / "run"), "logger": False}
    data = {**tiny_settings["data"], "speech_instruction": " Answer it.", "system": "You know."}
    (folder / "run.yaml").write_text(yaml.safe_dump({**tiny_settings, "trainer": trainer, "data": data}))
    assert main(["fit", "--config", str(folder / "run.yaml")]) == 0
    return folder / "run"


def logits(folder: Path) -> torch.Tensor:
    return AutoModelForCausalLM.from_pretrained(folder)(IDS).logits.detach()


def test_plain_transformers_computes_the_same(run: Path, tmp_path: Path, tiny_llm_dir: Path) -> None:
    assert main(["export", str(run), "-o", str(tmp_path / "out")]) == 0
    model = SpeechLLM.from_run(run)
    assert torch.equal(logits(tmp_path / "out"), model.llm(IDS).logits)
    assert not torch.equal(logits(tmp_path / "out"), logits(tiny_llm_dir))
    written = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert written.chat_template == model.tokenizer.chat_template
    assert written("What is it?") == model.tokenizer("What is it?")
    assert not list(tmp_path.rglob("*.bin"))
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_ask_and_speech_llm_read_it(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(run), "-o", str(tmp_path / "out")]) == 0
    before, after = SpeechLLM.from_run(run), SpeechLLM.from_run(tmp_path / "out")
    batch = make_batch(before, [40, None, 73])
    assert torch.equal(before.answer_losses(batch)[0], after.answer_losses(batch)[0])
    prompts = read_manifest(tmp_path / "out")["prompts"]
    assert prompts["speech_instruction"] == " Answer it."
    assert prompts["system"] == "You know."
    clip = next(Path(json.loads(line)["audio"]) for line in _manifest(run).read_text().splitlines())
    answers = []
    for source in (run, tmp_path / "out"):
        capsys.readouterr()
        assert main(["ask", str(source), "--audio", str(_manifest(run).parent / clip), "--text", "Who?"]) == 0
        answers.append(capsys.readouterr().out)
    assert answers[0] == answers[1]


def test_a_measurement_of_an_export_says_its_step_and_one_of_another_model_none(
    run: Path, tmp_path: Path, tiny_llm_dir: Path
) -> None:
    assert main(["export", str(run), "-o", str(tmp_path / "out")]) == 0
    step = read_manifest(tmp_path / "out")["origin"]["step"]
    assert step > 0
    for source, heading in ((tmp_path / "out", f"probe, step {step}"), (tiny_llm_dir, "probe")):
        snapshot = load(source).probe(str(_manifest(run)), count=2, estimators=("taylor",))
        assert Snapshot.load(snapshot.save(tmp_path / "snapshot")).heading == heading


def test_the_learned_end_is_a_stop_for_those_who_generate_with_it(run: Path, tmp_path: Path) -> None:
    assert main(["export", str(run), "-o", str(tmp_path / "out")]) == 0
    config = AutoModelForCausalLM.from_pretrained(tmp_path / "out").generation_config
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert config.eos_token_id == [0, tokenizer.convert_tokens_to_ids("<|im_end|>")]
    assert (config.do_sample, config.repetition_penalty) == (True, 1.1)  # as its makers would sample


def _manifest(run: Path) -> Path:
    import yaml

    return Path(yaml.safe_load((run / "config.yaml").read_text())["data"]["train"][0])


def test_alpha_and_reverted_matrices(run: Path, tmp_path: Path, tiny_llm_dir: Path) -> None:
    base = AutoModelForCausalLM.from_pretrained(tiny_llm_dir).state_dict()
    tuned = SpeechLLM.from_run(run).llm.state_dict()
    assert main(["export", str(run), "-o", str(tmp_path / "half"), "--alpha", "0.5"]) == 0
    half = AutoModelForCausalLM.from_pretrained(tmp_path / "half").state_dict()
    for name, tensor in half.items():
        torch.testing.assert_close(tensor.double(), (base[name].double() + tuned[name].double()) / 2)
    assert main(["export", str(run), "-o", str(tmp_path / "base"), "--alpha", "0"]) == 0
    assert all(
        torch.equal(t, base[n]) for n, t in AutoModelForCausalLM.from_pretrained(tmp_path / "base").state_dict().items()
    )
    up, down = "model.layers.0.mlp.up_proj.weight", "model.layers.1.mlp.down_proj.weight"
    attribution = tmp_path / "attribution.json"
    attribution.write_text(json.dumps({"parameters": {up: 0.2, down: 0.1, "model.norm.weight": -0.3}}))
    assert main(["export", str(run), "-o", str(tmp_path / "r"), "--revert", str(attribution), "--top", "1"]) == 0
    reverted = AutoModelForCausalLM.from_pretrained(tmp_path / "r").state_dict()
    for name, tensor in reverted.items():
        assert torch.equal(tensor, base[name] if name == up else tuned[name])
    assert read_manifest(tmp_path / "r")["origin"]["reverted"] == [up]


def test_an_export_is_replaced_whole_and_nothing_else_is(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["export", str(run), "-o", str(out)]) == 0
    (out / "stale.txt").write_text("of the older one")
    words = ["export", str(run), "-o", str(out), "--dtype", "bfloat16"]
    assert main(words) == 2
    assert (out / "stale.txt").exists()
    assert main([*words, "--overwrite"]) == 0
    assert not (out / "stale.txt").exists()
    assert AutoModelForCausalLM.from_pretrained(out).dtype == torch.bfloat16
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_an_export_is_tested_in_the_place_of_a_checkpoint(run: Path, tmp_path: Path) -> None:
    assert main(["export", str(run), "-o", str(tmp_path / "out")]) == 0
    retention = tmp_path / "retention.yaml"
    retention.write_text("trainer:\n  callbacks:\n    - class_path: Retention\n")
    words = ["test", "--config", str(run / "config.yaml"), "--config", str(retention), "--ckpt_path"]
    assert main([*words, str(tmp_path / "out")]) == 0
    assert main([*words, "last"]) == 0
    own = read_predictions(run / "evaluation/test/step=000003.jsonl")
    assert len(own) == 12
    assert read_predictions(tmp_path / "out-test/evaluation/test/step=000000.jsonl") == own
    assert not (run / "evaluation/test/step=000000.jsonl").exists()


def test_a_fit_says_how_to_go_on_from_an_export(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(run), "-o", str(tmp_path / "out")]) == 0
    assert main(["fit", "--config", str(run / "config.yaml"), "--ckpt_path", str(tmp_path / "out")]) == 2
    assert "to train it further: --model.llm" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{run}", "-o", "{tmp}"], "exists and is no export; allowed: a new folder"),
        (["{tmp}/none", "-o", "{tmp}/x"], "none does not exist; allowed: a run directory"),
        (["{tmp}", "-o", "{tmp}/x"], "is neither a checkpoint nor a run directory"),
        (["{run}", "-o", "{tmp}/x", "--without-inserted"], "FullFineTuning inserts no layers that could be removed"),
        (["{run}", "-o", "{tmp}/x", "--top", "3"], "--revert and --top belong together"),
        (["{run}", "-o", "{tmp}/x", "--revert", "{tmp}/bad.json", "--top", "3"], "bad.json is not the JSON of"),
        (["{run}", "-o", "{tmp}/x", "--revert", "{tmp}/odd.json", "--top", "3"], "training did not move 'head'"),
    ],
)
def test_refusals_are_one_line_and_leave_nothing(
    run: Path, tmp_path: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.json").write_text("[1]")
    (tmp_path / "odd.json").write_text('{"parameters": {"head": 1}}')
    before = set(tmp_path.iterdir())
    capsys.readouterr()
    assert main(["export", *(word.format(run=run, tmp=tmp_path) for word in words)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert set(tmp_path.iterdir()) == before
