"""The text LLM of each family of audio LLMs, against the audio LLM itself and against transformers' own text LLM."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoTokenizer, LlamaConfig

from tests.support.tiny_audio_llms import FAMILIES, ROWS, build_tiny, tiny_tokenizer, write_tiny_audio_llm
from textkeep.importance import probe
from textkeep.lightning_modules.llm.carving import carve
from textkeep.lightning_modules.llm.opening import hears, open_audio_llm, open_causal_lm, read_config
from textkeep.lightning_modules.llm.packed_embeddings import text_embeddings

SCALED = {"granite_speech": 8.0, "granite_speech_plus": 8.0}
"""By how much the logits of an audio LLM are larger: it leaves its text LLM's ``logits_scaling`` out."""


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def folder(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_audio_llm(family, tmp_path_factory.mktemp(family))


@pytest.fixture
def whole(family: str) -> Any:
    return build_tiny(family, tiny_tokenizer(FAMILIES[family]))


def text(rows: int = 2) -> dict[str, torch.Tensor]:
    """Rows of other lengths, padded on the right, without an id of sound."""
    ids = torch.randint(20, 200, (rows, 12), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    ids[0, 9:], mask[0, 9:] = 0, 0
    return {"input_ids": ids, "attention_mask": mask}


@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 0.0), (torch.float32, 1e-6)], ids=str)
@torch.no_grad()
def test_it_computes_on_text_what_the_whole_does(family: str, whole: Any, dtype: torch.dtype, error: float) -> None:
    llm, inputs = carve(whole.to(dtype)), text()
    known = inputs["attention_mask"].bool()
    for model in (whole, llm):
        model.set_experts_implementation("eager")  # torch has no grouped product in float64
    wanted, found = whole(**inputs).logits, llm(**inputs).logits
    assert wanted[known].std() > 1e-3
    assert (wanted / SCALED.get(family, 1) - found)[known].abs().max() <= error
    embeds = text_embeddings(llm, inputs["input_ids"])
    torch.testing.assert_close(llm(**inputs, logits_to_keep=3).logits, found[:, -3:])
    given = llm(inputs_embeds=embeds, attention_mask=inputs["attention_mask"]).logits
    assert torch.equal(given, found)


def test_it_shares_every_weight_with_the_whole(whole: Any) -> None:
    before = {p.data_ptr() for p in whole.parameters()}
    llm = carve(whole)
    own = {id(p) for p in whole.parameters()}
    assert {id(p) for p in llm.parameters()} <= own
    assert {p.data_ptr() for p in llm.parameters()} <= before
    assert not any(tensor.is_meta for tensor in [*llm.parameters(), *llm.buffers()])
    assert sum(p.numel() for p in llm.parameters()) < sum(p.numel() for p in whole.parameters())
    llm.double()
    assert {id(p) for p in llm.parameters()} <= {id(p) for p in whole.parameters()}  # and goes on to


def test_it_has_class_and_names_of_the_text_base(family: str, whole: Any) -> None:
    llm = carve(whole)
    assert type(llm).__name__ == FAMILIES[family].text_base
    fresh = type(llm)(llm.config)
    assert [(n, p.shape) for n, p in llm.named_parameters()] == [(n, p.shape) for n, p in fresh.named_parameters()]
    assert "model.layers.1.self_attn.o_proj.weight" in dict(llm.named_parameters())


def test_its_head_is_tied_as_the_wholes_is_and_stays_so_on_disk(whole: Any, tmp_path: Path) -> None:
    llm = carve(whole)
    tied = whole.get_output_embeddings().weight is whole.get_input_embeddings().weight
    assert (llm.lm_head.weight is llm.get_input_embeddings().weight) == tied == llm.config.tie_word_embeddings
    llm.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    wanted = llm.state_dict()
    assert type(again) is type(llm)
    assert again.state_dict().keys() == wanted.keys()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in again.state_dict().items())


@torch.no_grad()
def test_it_is_opened_from_a_folder_by_name(family: str, folder: Path, whole: Any) -> None:
    config = read_config(str(folder))
    assert hears(config)
    again = open_audio_llm(str(folder), config, torch.float32)
    assert type(again) is type(whole)
    llm = open_causal_lm(str(folder), torch.float32)
    assert not llm.training
    assert torch.equal(llm(**text()).logits, carve(whole)(**text()).logits)
    assert len(AutoTokenizer.from_pretrained(folder)) <= ROWS


@torch.no_grad()
def test_what_is_edited_in_it_is_edited_in_the_whole(whole: Any) -> None:
    llm, inputs = carve(whole), text()
    before = whole(**inputs).logits
    llm.get_parameter("model.layers.0.self_attn.o_proj.weight").add_(0.5)
    after = whole(**inputs).logits
    assert (after - before).abs().max() > 1e-3


def test_its_importance_is_that_of_the_text_base_on_its_own(whole: Any, tmp_path: Path) -> None:
    llm = carve(whole)
    llm.save_pretrained(tmp_path)
    base = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    labels = text()["input_ids"].clone()
    labels[:, :4], labels[0, 9:] = -100, -100
    batches = [{**text(), "labels": labels, "ids": ["a", "b"]}]
    ours, theirs = (probe(model, batches, ("taylor", "fisher")) for model in (llm, base))
    assert [matrix.name for matrix in ours.table] == [matrix.name for matrix in theirs.table]
    assert len(ours.table) >= 8
    for estimator in ("taylor", "fisher"):
        assert (ours.scores(estimator) == theirs.scores(estimator)).all()
        assert (ours.scores(estimator) > 0).all()


# ------------------------------------------------------------------ what is special in a family


@torch.no_grad()
def test_lora_that_an_audio_llm_has_for_sound_alone_is_taken_out(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer(FAMILIES["granite_speech"])
    whole, bare = (build_tiny("granite_speech", tokenizer) for _ in range(2))
    whole.add_adapter(peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    wanted = carve(bare)
    assert (whole(**text()).logits - bare(**text()).logits).abs().max() > 1e-6
    whole.save_pretrained(str(tmp_path / "saved"))
    bare.save_pretrained(tmp_path)
    for name in ("adapter_config.json", "adapter_model.safetensors"):  # beside the weights, as on the hub
        shutil.copy(tmp_path / "saved" / name, tmp_path / name)
    assert any("lora_A" in name for name in open_audio_llm(str(tmp_path), whole.config, torch.float32).state_dict())
    for llm in (open_causal_lm(str(tmp_path), torch.float32), carve(whole)):
        assert torch.equal(llm(**text()).logits, wanted(**text()).logits)
        assert llm.state_dict().keys() == wanted.state_dict().keys()
        assert all(parameter.requires_grad for parameter in llm.parameters())


def test_an_audio_llm_that_also_speaks_is_opened_without_what_speaks(tmp_path: Path) -> None:
    thinker = write_tiny_audio_llm("qwen2_5_omni_thinker", tmp_path / "thinker")
    weights = load_file(thinker / "model.safetensors")
    whole = {name if name.startswith("thinker.") else f"thinker.{name}": tensor for name, tensor in weights.items()}
    folder = tmp_path / "omni"
    folder.mkdir()
    save_file({**whole, "talker.model.norm.weight": torch.ones(3)}, folder / "model.safetensors", {"format": "pt"})
    inner = json.loads((thinker / "config.json").read_text())
    config = {"model_type": "qwen2_5_omni", "architectures": ["Qwen2_5OmniModel"], "thinker_config": inner}
    (folder / "config.json").write_text(json.dumps(config))
    llm, wanted = (open_causal_lm(str(where), torch.float32) for where in (folder, thinker))
    assert all(torch.equal(tensor, wanted.state_dict()[name]) for name, tensor in llm.state_dict().items())
    assert type(llm).__name__ == "Qwen2ForCausalLM"


def test_stops_and_lengths_of_the_whole_are_those_of_the_carved() -> None:
    whole = build_tiny("glmasr", tiny_tokenizer(FAMILIES["glmasr"]))
    whole.generation_config.eos_token_id = [7, 8]
    llm = carve(whole)
    assert llm.generation_config.eos_token_id == [7, 8]
    llm.generation_config.eos_token_id = 3
    assert whole.generation_config.eos_token_id == [7, 8]


@pytest.mark.parametrize("kind", ["moshi", "csm", "kyutai_speech_to_text"])
def test_summed_streams_are_refused_before_weights_are_read(kind: str, tmp_path: Path) -> None:
    CONFIG_MAPPING[kind]().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"no text LLM can be taken out of {kind}: it adds up the embeddings of sev"):
        open_causal_lm(str(tmp_path), torch.float32)


def test_a_decoder_without_a_causal_lm_is_refused() -> None:
    whole = build_tiny("glmasr", tiny_tokenizer(FAMILIES["glmasr"]))
    whole.config.text_config = CONFIG_MAPPING["voxtral_realtime_text"]()
    with pytest.raises(ValueError, match="has no causal LM of its decoder, voxtral_realtime_text"):
        carve(whole)


def test_a_decoder_of_another_class_than_its_configuration_says_is_refused() -> None:
    whole = build_tiny("glmasr", tiny_tokenizer(FAMILIES["glmasr"]))
    whole.config.text_config = CONFIG_MAPPING["qwen3"](hidden_size=32, num_hidden_layers=1, vocab_size=ROWS)
    with pytest.raises(ValueError, match="its decoder is a LlamaModel, and that of Qwen3ForCausalLM a Qwen3Model"):
        carve(whole)


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma3", "qwen2_vl", "whisper", "wav2vec2", "gemma4_text"])
def test_what_only_reads_or_only_hears_is_no_audio_llm(kind: str) -> None:
    assert not hears(CONFIG_MAPPING[kind]())


def test_gemma_without_its_part_for_sound_is_no_audio_llm() -> None:
    assert not hears(CONFIG_MAPPING["gemma4"](audio_config=None))


class Holder(nn.Module):
    """An audio LLM of remote code, as Ultravox is one: a causal LM beside what hears."""

    def __init__(self) -> None:
        super().__init__()
        sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
        self.audio_tower = nn.Linear(3, 3)
        self.language_model = AutoModelForCausalLM.from_config(LlamaConfig(vocab_size=ROWS, **sizes))


def test_a_causal_lm_that_is_a_part_is_taken_as_it_is() -> None:
    whole = Holder().eval()
    assert carve(whole) is whole.language_model


def test_a_model_without_a_causal_lm_is_refused() -> None:
    with pytest.raises(ValueError, match="taken out of Linear: it holds no causal LM of transformers"):
        carve(nn.Linear(2, 2))


def test_code_of_a_models_own_is_not_run_and_not_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it asked"))
    (tmp_path / "remote.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    config = {"model_type": "of_mine", "auto_map": {"AutoConfig": "remote.Config", "AutoModel": "remote.Model"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="it comes with code of its own, which is not run; allowed: a kind that"):
        open_causal_lm(str(tmp_path), torch.float32)
    assert not (tmp_path / "ran").exists()
