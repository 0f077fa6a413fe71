"""An audio LLM with code of its own, in the shape of Ultravox: refused, and run where it is asked for by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, GlmAsrProcessor, WhisperFeatureExtractor

from tests.support.speech_batches import make_batch
from tests.support.tiny_audio_llms import FAMILIES, ROWS, tiny_tokenizer
from textkeep.lightning_modules import FullFineTuning, LoRA, OwnEar, SpeechLLM
from textkeep.lightning_modules.saving.export_folder import write_export

CODE = """
from pathlib import Path

import torch
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedConfig, PreTrainedModel

Path(__file__).with_name("ran").touch()


class RemoteSoundConfig(PreTrainedConfig):
    model_type = "remote_sound"


class RemoteConfig(PreTrainedConfig):
    model_type = "remote_audio_llm"
    sub_configs = {"text_config": LlamaConfig, "audio_config": RemoteSoundConfig}

    def __init__(self, text_config=None, audio_config=None, audio_token_id=0, **options):
        self.text_config = LlamaConfig(**(text_config or {}))
        self.audio_config = RemoteSoundConfig(**(audio_config or {}))
        self.audio_token_id = audio_token_id
        super().__init__(**options)


class RemoteModel(PreTrainedModel):
    config_class = RemoteConfig
    config: RemoteConfig

    def __init__(self, config):
        super().__init__(config)
        self.audio_tower = nn.Linear(128, 16)
        self.multi_modal_projector = nn.Linear(16, config.text_config.hidden_size)
        self.language_model = AutoModelForCausalLM.from_config(config.text_config)
        self.post_init()

    def get_input_embeddings(self):
        return self.language_model.get_input_embeddings()

    def forward(self, input_ids, attention_mask, input_features=None, input_features_mask=None, **options):
        embeds = self.get_input_embeddings()(input_ids)
        sound = input_ids == self.config.audio_token_id
        if input_features is not None:
            frames = self.multi_modal_projector(self.audio_tower(input_features.transpose(1, 2)[:, ::4]))
            heard = torch.cat([row[: int(count)] for row, count in zip(frames, sound.sum(1))])
            embeds = embeds.masked_scatter(sound[..., None], heard)
        return self.language_model.forward(inputs_embeds=embeds, attention_mask=attention_mask, **options)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As on the hub, with random weights."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it asked"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    folder = tmp_path / "hub"
    folder.mkdir()
    tokenizer = tiny_tokenizer(FAMILIES["glmasr"])
    extractor = WhisperFeatureExtractor(feature_size=128, chunk_length=4)
    processor = GlmAsrProcessor(extractor, tokenizer, audio_token="<|pad|>", chat_template=tokenizer.chat_template)
    processor.save_pretrained(folder)
    (folder / "remote.py").write_text(CODE)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = {
        "model_type": "remote_audio_llm",
        "architectures": ["RemoteModel"],
        "auto_map": {"AutoConfig": "remote.RemoteConfig", "AutoModel": "remote.RemoteModel"},
        "audio_token_id": tokenizer.convert_tokens_to_ids("<|pad|>"),
        "text_config": {**sizes, "vocab_size": ROWS, "pad_token_id": 0, "eos_token_id": 2},
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def with_weights(folder: Path) -> Path:
    from transformers import AutoConfig

    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
    AutoModel.from_config(config, trust_remote_code=True).save_pretrained(folder)
    return folder


def ran(folder: Path) -> bool:
    return any(folder.parent.rglob("ran"))


def test_its_code_is_not_run_unless_it_is_asked_for(folder: Path) -> None:
    for ear in (OwnEar(), OwnEar(trust_remote_code=False), None):
        with pytest.raises(ValueError, match="it comes with code of its own, which is not run"):
            SpeechLLM(str(folder), ear=ear) if ear else OwnEar().open(str(folder), torch.float32)
    assert not ran(folder)
    SpeechLLM(str(folder), ear=OwnEar(trust_remote_code=True))
    assert ran(folder)


def test_it_is_carved_trained_and_exported(folder: Path, tmp_path: Path) -> None:
    whole: Any = AutoModel.from_pretrained(with_weights(folder), trust_remote_code=True).eval()
    settings = {"tuning": FullFineTuning(train_encoder=True), "max_new_tokens": 3}
    model = SpeechLLM(str(folder), ear=OwnEar(trust_remote_code=True), **settings)
    model.configure_model()
    assert type(model.llm).__name__ == "LlamaForCausalLM"
    batch = make_batch(model.eval(), [100, 173])
    with torch.no_grad():
        ids = batch.input_ids.masked_fill(batch.audio_mask, whole.config.audio_token_id)
        wanted = whole(ids, batch.attention_mask, **batch.inputs).logits
        embeds = model.embed(batch)["inputs_embeds"]
        found = model.llm(inputs_embeds=embeds, attention_mask=batch.attention_mask).logits
    assert torch.equal(found, wanted)
    model.step_total(batch).loss.backward()
    for part in (model.encoder, model.adaptor, model.llm):
        assert all(parameter.grad is not None for parameter in part.parameters())
    ear = {"class_path": "textkeep.lightning_modules.OwnEar", "init_args": {"trust_remote_code": True}}
    write_export(tmp_path / "out", model, {"tuning": None, "ear": ear}, {}, {})
    again = SpeechLLM.from_run(tmp_path / "out")
    assert torch.equal(again.answer_losses(batch)[0], model.answer_losses(batch)[0])


def test_its_projector_can_have_lora(folder: Path) -> None:
    """A projector that is one matrix is put aside for LoRA in the audio LLM too."""
    tuning = LoRA(r=2, parts={"adaptor": None})
    model = SpeechLLM(str(with_weights(folder)), ear=OwnEar(trust_remote_code=True), tuning=tuning)
    model.configure_model()
    batch = make_batch(model.eval(), [100])
    before = model.answer_losses(batch)[0]
    torch.nn.init.ones_(model.adaptor.multi_modal_projector.lora_B["default"].weight)
    assert model.answer_losses(batch)[0] != before
