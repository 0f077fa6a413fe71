"""An audio LLM on the way back to the text LLM that it came from: scored, and written as an audio LLM again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoModelForMultimodalLM, AutoProcessor

from tests.support.tiny_audio_llms import FAMILIES, build_tiny, class_of, tiny_tokenizer
from tests.support.two_models import FAMILY, write_two_models
from textkeep.cli.main import main
from textkeep.inference import load, read_examples
from textkeep.lightning_modules.llm.carving import carve
from textkeep.lightning_modules.llm.opening import open_causal_lm
from textkeep.lightning_modules.saving.edited_folder import ModelFolder

QUICK = ("qwen2_audio", "qwen2_5_omni_thinker", "qwen3_omni_moe_thinker", "phi4_multimodal")
"""Families whose files differ in kind: a decoder inside, a thinker, experts, a decoder with everything in it."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_two_models(tmp_path_factory.mktemp("models"))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def export(models: Path, target: Path, *words: str) -> None:
    given = ["export", str(models / "audio"), "--base", str(models / "base"), "-o", str(target), *words]
    assert main(given) == 0


def test_the_ends_are_exact_and_the_rest_stays(models: Path, tmp_path: Path) -> None:
    """1 is the audio LLM, tensor by tensor; 0 has the base's text LLM in it, and what hears stays what it was."""
    own, base = weights(models / "audio"), AutoModelForCausalLM.from_pretrained(models / "base")
    export(models, tmp_path / "one")
    same = weights(tmp_path / "one")
    assert same.keys() == own.keys()
    assert all(torch.equal(tensor, own[name]) and tensor.dtype == torch.bfloat16 for name, tensor in same.items())
    export(models, tmp_path / "none", "--alpha", "0")
    again = AutoModelForMultimodalLM.from_pretrained(tmp_path / "none")
    for name, parameter in carve(again).named_parameters():
        assert torch.equal(parameter, base.get_parameter(name)), name
    changed = [name for name, tensor in weights(tmp_path / "none").items() if not torch.equal(tensor, own[name])]
    assert all("language_model" in name for name in changed)
    assert len(changed) == 12  # of the second layer, and the embeddings
    assert {f.name for f in (tmp_path / "none").iterdir()} == {f.name for f in (models / "audio").iterdir()} | {
        "repair.json"
    }
    assert json.loads((tmp_path / "none" / "repair.json").read_text())["alpha"] == 0
    processor = AutoProcessor.from_pretrained(tmp_path / "none")
    inputs = processor(text=[FAMILIES[FAMILY].slot], audio=[torch.zeros(16000).numpy()], return_tensors="pt")
    assert again.float().generate(**inputs, max_new_tokens=2).shape[0] == 1


def test_the_same_weights_in_another_format_are_left_out(models: Path, tmp_path: Path) -> None:
    """They would be those from before: some loaders prefer Mistral's consolidated file, or read GGUF."""
    audio = shutil.copytree(models / "audio", tmp_path / "audio")
    for name in ("consolidated.safetensors", "pytorch_model.bin", "q4.gguf", "notes.txt"):
        (audio / name).write_bytes(b"x")
    words = ["export", str(audio), "--base", str(models / "base"), "-o", str(tmp_path / "out"), "--alpha", "0.5"]
    assert main(words) == 0
    written = {file.name for file in (tmp_path / "out").iterdir()}
    before = {file.name for file in (models / "audio").iterdir()}
    assert written == before | {"repair.json", "notes.txt"}


def test_between_and_reverted_are_what_they_say(models: Path, tmp_path: Path) -> None:
    own, base = (open_causal_lm(str(models / name), torch.float32) for name in ("audio", "base"))
    name = "model.layers.1.mlp.up_proj.weight"
    (tmp_path / "a.json").write_text(json.dumps({"parameters": {name: 0.3, "model.norm.weight": -0.1}}))
    words = ["--alpha", "0.25", "--revert", str(tmp_path / "a.json"), "--top", "1"]
    export(models, tmp_path / "mixed", *words)
    mixed = open_causal_lm(str(tmp_path / "mixed"), torch.float32)
    for other, parameter in mixed.named_parameters():
        one, two = base.get_parameter(other), own.get_parameter(other)
        wanted = one if other == name else one + 0.25 * (two - one)
        torch.testing.assert_close(parameter, wanted, rtol=2**-8, atol=1e-6)  # rounded once, to bfloat16
    assert torch.equal(mixed.get_parameter(name), base.get_parameter(name))


def test_interpolation_is_scored_in_the_words_of_the_base_and_by_voice(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = str(models / "facts.jsonl"), tmp_path / "sweep"
    words = ["--alphas", "0", "0.5", "1", "--heldout", data, "--heldout-examples", "4", "--questions", data]
    capsys.readouterr()
    given = ["interpolate", str(models / "audio"), "--base", str(models / "base"), *words, "-o", str(out)]
    assert main([*given, "--plot", str(tmp_path / "sweep.png"), "--device", "cpu"]) == 0
    told = capsys.readouterr()
    assert "cannot be asked by voice" not in told.err
    assert "6 questions" in told.out
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")
    points = {p["name"]: p for p in json.loads((out / "interpolation.json").read_text())["points"]}
    asked = read_examples(data, "text", 4)
    for alpha, name in (("alpha=0", "base"), ("alpha=1", "audio")):
        model = load(models / name, "cpu")  # the fixture's chat templates are the same
        held = model.summed_losses(asked)
        wanted = sum(loss for _, loss, _ in held) / sum(tokens for *_, tokens in held)
        assert points[alpha]["scores"]["heldout_text_loss"][0] == pytest.approx(wanted, rel=1e-6)
        every = model.summed_losses(read_examples(data))
        wanted = sum(loss for _, loss, _ in every) / sum(tokens for *_, tokens in every)
        assert points[alpha]["scores"]["text_answer_loss"][0] == pytest.approx(wanted, rel=1e-6)
    listener, spoken = load(models / "audio", "cpu"), read_examples(data, "speech")
    for alpha, llm in (("alpha=1", listener.llm), ("alpha=0", load(models / "base", "cpu").llm)):
        listener.llm.load_state_dict(llm.state_dict())  # the base's weights under the ear that came with the other
        every = listener.summed_losses(spoken, "speech")
        wanted = sum(loss for _, loss, _ in every) / sum(tokens for *_, tokens in every)
        assert points[alpha]["scores"]["speech_answer_loss"][0] == pytest.approx(wanted, rel=1e-6)
    assert "speech_accuracy_change" in points["alpha=0.5"]["against_tuned"]
    change = points["alpha=0"]["against_tuned"]["heldout_text_loss_change"]
    assert change[0] == pytest.approx(
        points["alpha=0"]["scores"]["heldout_text_loss"][0] - points["alpha=1"]["scores"]["heldout_text_loss"][0]
    )


def test_an_audio_llm_that_cannot_listen_says_why_and_is_read(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    audio, data = shutil.copytree(models / "audio", tmp_path / "audio"), str(models / "facts.jsonl")
    for name in ("processor_config.json", "preprocessor_config.json"):
        (audio / name).unlink(missing_ok=True)
    words = ["--alphas", "1", "--heldout", data, "--questions", data, "--items", "2", "--device", "cpu"]
    capsys.readouterr()
    assert main(["interpolate", str(audio), "--base", str(models / "base"), *words]) == 0
    told = capsys.readouterr()
    assert "cannot be asked by voice (" in told.err
    assert "): text alone is scored" in told.err
    assert "speech" not in told.out.partition("held-out text:")[2]


@pytest.mark.parametrize(
    "family", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES]
)
def test_every_family_is_found_in_its_files(family: str, tmp_path: Path) -> None:
    """What is carved lies in the folder by one prefix; with other values written it is read back as an audio LLM."""
    tokenizer = tiny_tokenizer(FAMILIES[family])
    build_tiny(family, tokenizer).save_pretrained(tmp_path / "audio")
    llm = open_causal_lm(str(tmp_path / "audio"), torch.float32)
    folder, before = ModelFolder(tmp_path / "audio"), weights(tmp_path / "audio")
    parameters = dict(llm.named_parameters())
    if family == "qwen3_omni_moe_thinker":  # its files hold each expert by itself
        with pytest.raises(ValueError, match=r"do not hold .*experts.* as it was read; allowed"):
            folder.places(parameters)
        return
    places = folder.places(parameters)
    assert {key for there in places.values() for _, key in there} <= before.keys()
    values = {place: -parameters[name] for name, there in places.items() for place in there}
    folder.write(tmp_path / "new", values, {})
    again = dict(open_causal_lm(str(tmp_path / "new"), torch.float32).named_parameters())
    assert all(torch.equal(again[name], -parameter) for name, parameter in parameters.items())
    after = weights(tmp_path / "new")
    rest = before.keys() - {key for _, key in values}
    assert rest
    assert all(torch.equal(after[key], before[key]) for key in rest)
    assert class_of(family).from_pretrained(tmp_path / "new").get_output_embeddings() is not None


def test_of_two_decoders_the_one_that_was_read_is_found(tmp_path: Path) -> None:
    """What speaks may have the names and shapes of what writes: the values tell them apart."""
    names = ("embed_tokens.weight", "layers.0.mlp.up_proj.weight")
    read = {f"model.{name}": torch.randn(6, 4) for name in names}
    files = {f"talker.model.{name}": torch.randn(6, 4) for name in names}
    files |= {f"thinker.{name}": tensor for name, tensor in read.items()}
    save_file(files, tmp_path / "model.safetensors")
    found = ModelFolder(tmp_path).places(read)
    assert found == {f"model.{name}": [("model.safetensors", f"thinker.model.{name}")] for name in names}
    read["model.layers.0.mlp.up_proj.weight"] = read["model.layers.0.mlp.up_proj.weight"] + 1
    with pytest.raises(ValueError, match=r"do not hold model\.layers\.0\.mlp\.up_proj\.weight as it was read"):
        ModelFolder(tmp_path).places(read)


def test_a_tied_head_that_is_stored_follows_its_embedding(tmp_path: Path) -> None:
    table = torch.randn(6, 4)
    tensors = {"m.model.embed_tokens.weight": table, "m.lm_head.weight": table.clone(), "tower.a": torch.ones(2)}
    save_file(tensors, tmp_path / "model.safetensors")
    found = ModelFolder(tmp_path).places({"model.embed_tokens.weight": table})
    assert [key for _, key in found["model.embed_tokens.weight"]] == ["m.model.embed_tokens.weight", "m.lm_head.weight"]


def test_another_token_under_an_id_of_the_template_is_refused(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The texts have the same ids; what begins a turn in the base's words is another token for the audio LLM."""
    shutil.copytree(models / "audio", tmp_path / "audio")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        path = tmp_path / "audio" / name
        path.write_text(path.read_text().replace("<|im_start|>", "<|turn|>"))
    words = ["--base", str(models / "base"), "--heldout", str(models / "facts.jsonl"), "--device", "cpu"]
    capsys.readouterr()
    assert main(["interpolate", str(tmp_path / "audio"), *words]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "have other tokens (id " in line
    assert "'<|im_start|>' in the first and '<|turn|>' in the second" in line


def refusals(models: Path, tmp_path: Path) -> list[tuple[list[str], str]]:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.txt").write_text("mine")
    audio, base = str(models / "audio"), str(models / "base")
    out = ["-o", str(tmp_path / "out")]
    return [
        (["export", audio, "--base", audio, *out], "have the same weights: nothing to interpolate"),
        (["export", audio, "--base", base, "--dtype", "bfloat16", *out], "--dtype goes with a run"),
        (["export", str(tmp_path / "run"), "--base", base, *out], "comes from a run, which knows its base"),
        (["export", audio, "--base", base, "-o", str(tmp_path / "mine"), "--overwrite"], "is no repaired model"),
        (["interpolate", audio, "--base", str(tmp_path / "none")], "none cannot be loaded"),
    ]


@pytest.mark.parametrize("kind", ["gpt2", "gpt_neox"])
def test_a_decoder_may_have_another_name(kind: str, tmp_path: Path) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[kind](vocab_size=64, bos_token_id=2, **sizes))
    model.save_pretrained(tmp_path / "own")
    folder, parameters = ModelFolder(tmp_path / "own"), dict(model.named_parameters())
    places = folder.places(parameters)
    folder.write(tmp_path / "out", {p: 2 * parameters[n] for n, there in places.items() for p in there}, {})
    again = dict(AutoModelForCausalLM.from_pretrained(tmp_path / "out").named_parameters())
    assert again.keys() == parameters.keys() == places.keys()
    assert all(torch.equal(again[name], 2 * value) for name, value in parameters.items())


@pytest.mark.parametrize("number", range(5))
def test_refusals_are_one_line(number: int, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words, message = refusals(models, tmp_path)[number]
    capsys.readouterr()
    assert main(words) == 2
    told: Any = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in told
    assert not (tmp_path / "out").exists()
