"""``textkeep importance compare BASE AUDIO_LLM --data TEXT`` on tiny models of known descent."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForMultimodalLM, AutoTokenizer

from tests.support.tiny_audio_llms import FAMILIES, build_tiny, tiny_tokenizer
from textkeep.cli.importance import main
from textkeep.cli.main import main as textkeep_main
from textkeep.importance import Snapshot, compare
from textkeep.inference.merging import with_rows_of
from textkeep.lightning_modules.llm.carving import carve

Run = Callable[..., Any]
FAMILY = "qwen3_asr"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An audio LLM, the text LLM that it came from, one of another seed, and a manifest."""
    folder, tokenizer = tmp_path_factory.mktemp("models"), tiny_tokenizer(FAMILIES[FAMILY])
    whole = build_tiny(FAMILY, tokenizer)
    base = carve(whole)
    base.save_pretrained(folder / "base")
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in base.named_parameters():
            if "layers.1.mlp" in name:
                parameter.add_(0.005 * torch.randn(parameter.shape, generator=generator))
    whole.save_pretrained(folder / "audio")
    carve(build_tiny(FAMILY, tokenizer, seed=5)).save_pretrained(folder / "stranger")
    for name in ("base", "audio", "stranger"):
        tokenizer.save_pretrained(folder / name)
    lines = [{"id": f"q{i}", "question": f"What is {i}?", "answers": [f"Lima {i}"]} for i in range(12)]
    (folder / "facts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture
def run(models: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(before: str, after: str, *options: str, json_too: bool = True) -> Any:
        capsys.readouterr()
        names = [str(models / before), str(models / after), "--data", str(models / "facts.jsonl")]
        argv = ["compare", *names, "--examples", "8", "--replicates", "50", "--device", "cpu", *options]
        assert main([*argv, *(["--json"] if json_too else [])]) == 0
        out = capsys.readouterr()
        return json.loads(out.out) if json_too else out.out + out.err

    return call


def test_an_audio_llm_against_the_text_llm_that_it_came_from(run: Run, models: Path, tmp_path: Path) -> None:
    found = run("base", "audio", "--snapshots", str(tmp_path / "kept"), "--plot", str(tmp_path / "shift.png"))
    related = found["lineage"]
    assert related["verdict"] == "parent"
    assert related["counts"] == {"parent": 14, "relative": 0, "unrelated": 0, "equal": 11}
    assert related["layers"]["00"]["change"] == 0 < related["layers"]["01"]["change"]
    before, after = (Snapshot.load(tmp_path / "kept" / name) for name in ("before", "after"))
    assert [shift["estimator"] for shift in found["shifts"]] == before.meta["estimators"]
    again = compare(before, after, "taylor", 50)
    assert found["shifts"][0]["metrics"]["js"]["value"] == again.metrics["js"].value > 0
    assert found["shifts"][0]["metrics"]["js"]["p"] is not None
    assert (tmp_path / "shift.png").stat().st_size > 1000
    argv = ["probe", str(models / "base"), "--data", str(models / "facts.jsonl"), "--examples", "8", "--device", "cpu"]
    assert main([*argv, "-o", str(tmp_path / "alone")]) == 0
    alone = Snapshot.load(tmp_path / "alone")
    assert alone.meta["probe"]["fingerprint"] == before.meta["probe"]["fingerprint"]
    assert (alone.scores("taylor") == before.scores("taylor")).all()


def test_both_are_asked_in_the_words_of_the_base(run: Run, models: Path, tmp_path: Path) -> None:
    """Another chat template of the audio LLM changes nothing: the shift is of weights."""
    shutil.copytree(models / "audio", tmp_path / "audio")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "audio")
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}"
    tokenizer.save_pretrained(tmp_path / "audio")
    one, other = run("base", "audio"), run("base", str(tmp_path / "audio"))
    assert one["shifts"] == other["shifts"]


def test_a_model_against_itself_has_not_moved(run: Run) -> None:
    found = run("audio", "audio")
    assert found["lineage"]["counts"]["equal"] == 14
    for shift in found["shifts"]:
        assert shift["metrics"]["js"]["value"] == 0
        assert shift["loss_before"] == shift["loss_after"]


def test_a_stranger_is_told_from_a_child(run: Run) -> None:
    told = run("stranger", "audio", json_too=False)
    assert "lineage: unrelated; cosine of the weights" in told
    assert "if they had been initialised independently; of 14 matrices 0 parent, 0 relative, 14 unrelated" in told
    assert "what follows is not a shift, but two models side by side" in told
    assert "paired p" in told


def test_other_ids_of_the_same_text_are_refused_in_one_line(
    run: Run, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(models / "audio", tmp_path / "audio")
    tiny_tokenizer(FAMILIES["glmasr"]).save_pretrained(tmp_path / "audio")
    words = [str(models / "base"), str(tmp_path / "audio"), "--data", str(models / "facts.jsonl"), "--device", "cpu"]
    assert textkeep_main(["importance", "compare", *words]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "write the same text with other ids ('" in line
    assert line.endswith("allowed: two models of one tokenizer")


def test_snapshots_without_models_are_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["a", "b", "--snapshots", str(tmp_path / "kept")]
    assert textkeep_main(["importance", "compare", *words]) == 2
    assert "--snapshots keeps the measurements of two models; give --data too" in capsys.readouterr().err


def test_what_an_audio_llm_lost_is_attributed_in_the_words_of_the_base(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows of new tokens, of which the base knows nothing, change no share: they are not among what moved."""
    audio = AutoModelForMultimodalLM.from_pretrained(models / "audio")
    audio.resize_token_embeddings(audio.get_input_embeddings().num_embeddings + 8, mean_resizing=False)
    with torch.no_grad():
        audio.get_output_embeddings().weight[-8:] = -audio.get_output_embeddings().weight[:8]
    audio.save_pretrained(tmp_path / "audio")
    tokenizer = AutoTokenizer.from_pretrained(models / "audio")
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path / "audio")
    (tmp_path / "audio" / "chat_template.jinja").unlink(missing_ok=True)
    names = [str(models / "base"), str(tmp_path / "audio"), "--data", str(models / "facts.jsonl")]
    capsys.readouterr()
    assert main(["attribute", *names, "--examples", "8", "--reverts", "1", "--device", "cpu", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {name.rsplit(".", 2)[0] for name in found["parameters"]} == {"model.layers.1.mlp"}
    assert found["complete"]
    assert sum(found["layers"].values()) == pytest.approx(found["loss_after"] - found["loss_before"], rel=0.05)


def test_rows_of_new_tokens_are_the_audio_llms_own(models: Path) -> None:
    audio = AutoModelForMultimodalLM.from_pretrained(models / "audio")
    base = {name: torch.zeros_like(p) for name, p in carve(audio).named_parameters()}
    audio.resize_token_embeddings(audio.get_input_embeddings().num_embeddings + 8, mean_resizing=False)
    llm = carve(audio)
    found = with_rows_of(llm, base)
    assert {name: tensor.shape for name, tensor in found.items()} == {n: p.shape for n, p in llm.named_parameters()}
    table = found["model.embed_tokens.weight"]
    assert torch.equal(table[-8:], llm.get_input_embeddings().weight[-8:])
    assert not table[:-8].any()
    assert base["model.embed_tokens.weight"].shape[0] == len(table) - 8
