"""Audio LLMs that train through the ear they came with, against the audio LLM itself as transformers runs it."""

from __future__ import annotations

import re
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoProcessor, AutoTokenizer

from tests.support.speech_batches import make_batch
from tests.support.speech_run import Losses, make_data, make_trainer
from tests.support.tiny_audio_llms import FAMILIES, ROWS, class_of, write_tiny_audio_llm
from textkeep.datamodules import AudioArray, Batch, ChatPrompt, Example, RowReader, SpeechTextData, View
from textkeep.datamodules.batches.front_end import words_around
from textkeep.datamodules.sources.bad_examples import BadExampleError
from textkeep.lightning_modules import (
    AdaptorOnly,
    AnswerCrossEntropy,
    CTCAlignment,
    FullFineTuning,
    LoRA,
    OwnEar,
    SpeechLLM,
    SpeechTurns,
    TextTwinDistillation,
)
from textkeep.lightning_modules.llm.lora_layers import lora_layers, merge_lora, merge_sound_lora
from textkeep.lightning_modules.llm.opening import open_causal_lm
from textkeep.lightning_modules.precision import own_types_kept
from textkeep.lightning_modules.saving.export_folder import write_export
from textkeep.lightning_modules.tuning import Tuning

HEARD = [name for name, family in FAMILIES.items() if family.processor is not None]
QUICK = ("qwen2_audio", "qwen2_5_omni_thinker", "granite_speech")
"""One of each shape: clips padded to a window; a twin, a projector in the tower and an eye; a parent without a name."""
SCALED = {"granite_speech": 8.0, "granite_speech_plus": 8.0}
"""By how much the logits of an audio LLM are larger: it leaves its text LLM's ``logits_scaling`` out."""
ALL: dict[str, list[str] | None] = dict.fromkeys(("llm", "adaptor", "encoder"))
"""LoRA on every part."""
EYE = re.compile(r"model\.(visual|embed_tokens_extend\.image_embed)\.|_for_vision_speech\.")
"""What of an audio LLM sees, or maps sound that comes with pictures."""
FLOAT32 = ("gemma4",)
"""Whose encoder computes in float32 whatever the type of its weights, and so not in float64."""
CLIPS = [100, 173]
"""In hundredths of a second."""


@pytest.fixture(scope="module", params=[n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in HEARD])
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def folder(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_audio_llm(family, tmp_path_factory.mktemp(family))


def built(folder: Path, tuning: Tuning | None = None, **settings: Any) -> SpeechLLM:
    torch.manual_seed(0)
    model = SpeechLLM(str(folder), ear=OwnEar(), tuning=tuning, max_new_tokens=4, **settings)
    model.configure_model()
    return model.eval()


@cache
def as_it_came(folder: Path) -> tuple[Any, Any]:
    """The audio LLM and its processor, as anybody loads them."""
    kind: Any = class_of(AutoConfig.from_pretrained(folder).model_type)
    return kind.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)


def processed(processor: Any, batch: Batch, answers: bool) -> dict[str, torch.Tensor]:
    """What the processor makes of the questions of a batch, in its own words; and of their answers."""
    instruction = {"type": "text", "text": "\nPlease directly answer the questions in the user's speech."}
    clips = [example.audio for example in batch.examples]
    assert all(clip is None for clip in clips)  # a batch carries none
    texts, sounds = [], []
    for index, clip in enumerate(CLIPS):
        noise = torch.randn(clip * 160, generator=torch.Generator().manual_seed(index))
        turn = [{"role": "user", "content": [{"type": "audio", "audio": "clip.wav"}, instruction]}]
        answer = "987654321"[: index + 1] + "<|im_end|>" if answers else ""
        texts.append(processor.tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True) + answer)
        sounds.append((0.1 * noise).numpy())
    side = {"padding": True, "padding_side": "right" if answers else "left"}
    return dict(processor(text=texts, audio=sounds, text_kwargs=side, return_tensors="pt"))


@torch.no_grad()
def test_on_sound_it_computes_what_the_audio_llm_does(family: str, folder: Path) -> None:
    whole, processor = as_it_came(folder)
    model = built(folder)
    batch = make_batch(model, CLIPS)
    wanted = processed(processor, batch, answers=True)
    sound = model.ear.front_end(model, False).audio_id
    assert torch.equal(batch.input_ids.masked_fill(batch.audio_mask, sound), wanted["input_ids"])
    assert torch.equal(batch.audio_mask, wanted["input_ids"] == sound)
    for one in (whole, model.llm):
        one.set_experts_implementation("eager")  # torch has no grouped product in float64
    bounds = ((torch.float64, 0.0), (torch.float32, 1e-6))
    for dtype, error in bounds[1:] if family in FLOAT32 else bounds:
        with own_types_kept(whole):
            whole.to(dtype)
        model.to(dtype)
        inputs = {n: t.to(dtype) if t.is_floating_point() else t for n, t in wanted.items()}
        expected = whole(**inputs).logits / SCALED.get(family, 1)
        found = model.embed(batch)
        ours = model.llm(inputs_embeds=found["inputs_embeds"], attention_mask=batch.attention_mask).logits
        known = batch.attention_mask.bool()
        assert expected[known].std() > 1e-3
        assert (ours - expected)[known].abs().max() <= error


def test_it_answers_what_the_audio_llm_answers(folder: Path) -> None:
    whole, processor = as_it_came(folder)
    model = built(folder)
    batch = make_batch(model, CLIPS, left=True)
    wanted = processed(processor, batch, answers=False)
    written = model.write(batch, 6)
    end = {"eos_token_id": [2], "pad_token_id": processor.tokenizer.pad_token_id}
    ids = whole.generate(**wanted, max_new_tokens=6, do_sample=False, **end)
    assert torch.equal(written.ids, ids[:, wanted["input_ids"].shape[1] :])
    one_by_one = [model.generate(make_batch(model, [clip], left=True), 6)[0] for clip in CLIPS[:1]]
    assert written.texts[:1] == one_by_one


def test_gradients_reach_all_that_trains_and_are_the_audio_llms(family: str, folder: Path) -> None:
    whole, processor = as_it_came(folder)
    model = built(folder, FullFineTuning(train_encoder=True))
    batch = make_batch(model, CLIPS)
    model.step_total(batch).loss.backward()
    for part in (model.encoder, model.adaptor, model.llm):
        assert any(parameter.grad.abs().max() > 0 for parameter in part.parameters())
        assert all(parameter.grad is not None for parameter in part.parameters())  # DDP waits for each
    if family in SCALED:
        return
    inputs = processed(processor, batch, answers=True)
    whole.zero_grad()
    whole(**inputs, labels=batch.labels).loss.backward()  # the mean over all answer tokens
    tokens = int((batch.labels != -100).sum())
    theirs = {id(parameter): name for name, parameter in model.ear.whole(model.llm).named_parameters()}
    ours = {theirs[id(parameter)]: parameter.grad for parameter in model.parameters() if id(parameter) in theirs}
    compared = [name for name, parameter in whole.named_parameters() if parameter.grad is not None and name in ours]
    assert len(compared) > 20
    for name in compared:
        gradient = whole.get_parameter(name).grad * tokens
        torch.testing.assert_close(ours[name], gradient, rtol=1e-3, atol=1e-5, msg=name)
    whole.zero_grad()


@pytest.mark.parametrize(
    ("tuning", "moves"),
    [
        (FullFineTuning(), {"llm", "adaptor"}),
        (FullFineTuning(train_encoder=True), {"llm", "adaptor", "encoder"}),
        (LoRA(r=2), {"lora of llm", "adaptor"}),
        (LoRA(r=2, gate=SpeechTurns()), {"lora of llm", "adaptor"}),
        (LoRA(r=2, gate=SpeechTurns(), parts=ALL), {"lora of llm", "lora of adaptor", "lora of encoder"}),
        (LoRA(r=2, parts={"encoder": None}), {"lora of encoder", "adaptor"}),
        (AdaptorOnly(), {"adaptor"}),
    ],
    ids=["full", "full and encoder", "lora", "gated", "lora of all, gated", "lora of the encoder", "adaptor"],
)
def test_a_step_moves_what_the_tuning_says(folder: Path, tuning: Tuning, moves: set[str]) -> None:
    model = built(folder, tuning)
    texts = make_batch(model, [None, None])
    untouched = model.answer_logits(texts).logits.detach()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    groups = tuning.parameter_groups(model.llm, model.encoder, model.adaptor)
    trained = [parameter for group in groups for parameter in group.parameters]
    assert len({id(p) for p in trained}) == len(trained) == sum(p.requires_grad for p in model.parameters())
    optimizer = torch.optim.SGD(trained, lr=0.1)
    model.train()
    for batch in (texts, make_batch(model, [*CLIPS, None])):
        optimizer.zero_grad()
        model.step_total(batch).loss.backward()
        assert all(parameter.grad is not None for parameter in trained)  # a rank with text must not leave one out
    optimizer.step()
    model.eval()
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    parts = {f"{'lora of ' * ('lora_' in name)}{name.partition('.')[0]}" for name in changed}
    assert parts == moves
    same = torch.equal(model.answer_logits(texts).logits, untouched)
    assert same == (not tuning.changes_text)


def test_it_holds_every_weight_once_and_no_eye(folder: Path) -> None:
    model = built(folder)
    whole = model.ear.whole(model.llm)
    parts = [{id(p) for p in part.parameters()} for part in (model.llm, model.encoder, model.adaptor)]
    assert not any(a & b for i, a in enumerate(parts) for b in parts[i + 1 :])
    left = {name for name, p in whole.named_parameters() if id(p) not in set.union(*parts)}
    assert all(EYE.search(name) for name in left)
    assert not any(EYE.search(name) for name in model.state_dict())
    buffers = {id(b) for part in (model.llm, model.encoder, model.adaptor) for b in part.buffers()}
    kept = {name for name, b in whole.named_buffers() if id(b) not in buffers}
    assert all(EYE.search(name) for name in kept)
    model.double()
    assert all(p.dtype == torch.float64 for n, p in whole.named_parameters() if not EYE.search(n))


def test_what_transformers_loads_of_an_export_answers_alike(folder: Path, tmp_path: Path) -> None:
    model = built(folder, FullFineTuning(train_encoder=True))
    batch = make_batch(model, CLIPS, left=True)
    model.train()
    model.step_total(make_batch(model, CLIPS)).loss.backward()
    torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1).step()
    settings = {"tuning": None, "max_new_tokens": 4, "ear": {"class_path": "textkeep.lightning_modules.OwnEar"}}
    write_export(tmp_path / "out", model.eval(), settings, {}, {})
    kind: Any = class_of(AutoConfig.from_pretrained(folder).model_type)
    whole, told = kind.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
    inputs = processed(AutoProcessor.from_pretrained(tmp_path / "out"), batch, answers=False)
    with torch.no_grad():
        found, untouched = whole.eval()(**inputs).logits, as_it_came(folder)[0](**inputs).logits
        assert torch.equal(found, model.ear.whole(model.llm).eval()(**inputs).logits)
    assert (found - untouched).abs().max() > 1e-3
    wanted = model.write(batch).ids
    assert torch.equal(SpeechLLM.from_run(tmp_path / "out").write(batch).ids, wanted)
    ids = whole.generate(**inputs, max_new_tokens=4, do_sample=False)
    assert torch.equal(ids[:, inputs["input_ids"].shape[1] :], wanted)


def test_lora_of_all_parts_is_in_an_export(family: str, folder: Path, tmp_path: Path) -> None:
    model, batch = built(folder, LoRA(r=2, parts=ALL)), None
    batch = make_batch(model, CLIPS)
    with torch.no_grad():
        before = model.answer_logits(batch).logits
        for part in (model.encoder, model.adaptor, model.llm):
            assert lora_layers(part)
            for layer in lora_layers(part).values():
                layer.lora_B["default"].weight.normal_(generator=torch.Generator().manual_seed(3))
            after = model.answer_logits(batch).logits
            assert not torch.equal(after, before)  # each part is on the way of sound
            before = after
        merge_sound_lora(model.encoder, model.adaptor)
        merge_lora(model.llm)
        settings = {"tuning": None, "ear": {"class_path": "textkeep.lightning_modules.OwnEar"}}
        write_export(tmp_path / "out", model, settings, {}, {})
        whole = class_of(AutoConfig.from_pretrained(folder).model_type).from_pretrained(tmp_path / "out").eval()
        logits = whole(**processed(as_it_came(folder)[1], batch, answers=True)).logits / SCALED.get(family, 1)
    first = int((batch.labels != -100).any(dim=0).nonzero()[0])
    known = batch.labels[:, first:] != -100
    torch.testing.assert_close(logits[:, first - 1 : -1][known], after[known], rtol=1e-3, atol=1e-4)


# ------------------------------------------------------------------ of one family


@pytest.fixture(scope="module")
def glm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_audio_llm("glmasr", tmp_path_factory.mktemp("glmasr"))


def spoken(count: int, text: str = "1?") -> list[Example]:
    noise = [torch.randn(1600 * (3 + i), generator=torch.Generator().manual_seed(i)) for i in range(count)]
    return [
        Example(str(i), text, ("2",), "2", AudioArray(0.1 * clip, 16000), location=f"line {i}")
        for i, clip in enumerate(noise)
    ]


def test_lengths_are_told_before_a_clip_is_read(glm: Path) -> None:
    data = SpeechTextData()
    data.connect(SpeechLLM(str(glm), ear=OwnEar()).front_end)
    loader = data.factory([]).loader(spoken(8), "speech")
    told = {view.example.id: n for view, n in zip(loader.dataset.views, loader.position.sampler.lengths, strict=True)}
    for batch in loader:
        taken = dict(zip(batch.ids, batch.attention_mask.sum(dim=1).tolist(), strict=True))
        assert all(taken[name] <= told[name] <= taken[name] + 4 for name in taken)


def test_workers_hear_the_same(glm: Path) -> None:
    front_end = SpeechLLM(str(glm), ear=OwnEar()).front_end
    batches = []
    for workers in (0, 2):
        data = SpeechTextData(num_workers=workers)
        data.connect(front_end)
        batches.append(list(data.factory([]).loader(spoken(3), "speech")))
    for alone, handed in zip(*batches, strict=True):
        assert torch.equal(alone.input_ids, handed.input_ids)
        assert alone.inputs.keys() == handed.inputs.keys() == {"input_features", "input_features_mask"}
        assert all(torch.equal(tensor, handed.inputs[name]) for name, tensor in alone.inputs.items())
        assert all(tensor.is_meta for tensor in handed.to("meta").inputs.values())


@torch.no_grad()
def test_lora_that_is_merged_is_in_the_audio_llm_too(tmp_path: Path) -> None:
    folder = write_tiny_audio_llm("qwen2_5_omni_thinker", tmp_path)  # whose text LLM is made of other modules
    model = built(folder, LoRA(r=2))
    for name, parameter in model.llm.named_parameters():
        if "lora_B" in name:
            parameter.normal_()
    merge_lora(model.llm)
    ids = torch.tensor([[20, 21, 22]])
    found = model.ear.whole(model.llm)(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    assert torch.equal(found, model.llm(ids).logits)
    assert (found - as_it_came(folder)[0](input_ids=ids).logits).abs().max() > 1e-3


@torch.no_grad()
def test_a_tensor_that_is_exchanged_is_heard_with_too(folder: Path) -> None:
    """FSDP2 puts another tensor in the place of each weight that it divides."""
    model = built(folder)
    batch = make_batch(model, CLIPS)
    before = model.embed(batch)["inputs_embeds"]
    table = model.llm.get_input_embeddings()
    table.weight = torch.nn.Parameter(2 * table.weight)
    text = batch.attention_mask.bool() & ~batch.audio_mask
    after = model.embed(batch)["inputs_embeds"]
    width = table.weight.shape[1]  # beside these, Gemma 4 has some of another table
    assert torch.equal(after[text][:, :width], 2 * before[text][:, :width])
    assert torch.equal(after[batch.audio_mask], before[batch.audio_mask])
    whole = dict(model.ear.whole(model.llm).named_modules(remove_duplicate=False))
    matrices = [m for m in model.llm.modules() if isinstance(m, torch.nn.Linear)]
    assert {id(m) for m in matrices} <= {id(m) for m in whole.values()}


def test_it_trains_in_bfloat16(glm: Path, tmp_path: Path) -> None:
    model = SpeechLLM(str(glm), ear=OwnEar(), tuning=FullFineTuning(train_encoder=True))
    trainer = make_trainer(tmp_path / "run", [], max_steps=2, limit_val_batches=1, precision="bf16-true")
    trainer.fit(model, make_data(tmp_path / "data"))
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert all(p.isfinite().all() for p in model.parameters())


def test_a_text_that_holds_the_token_of_sound_is_refused(glm: Path) -> None:
    data = SpeechTextData()
    data.connect(SpeechLLM(str(glm), ear=OwnEar()).front_end)
    with pytest.raises(BadExampleError, match=r"line 0.*'<\|pad\|>' stands for a position of sound"):
        data.factory([]).batches(spoken(1, "<|pad|>?"), "text", 1)


def test_a_clip_whose_end_would_not_be_heard_is_refused(glm: Path, tmp_path: Path) -> None:
    cut = write_tiny_audio_llm("qwen2_audio", tmp_path)  # pads to a window of 4 s, and cuts there
    for folder, seconds, heard in ((cut, 3.9, True), (cut, 5.0, False), (cut, 3.0, True), (glm, 5.0, True)):
        reader = RowReader(SpeechLLM(str(folder), ear=OwnEar()).front_end)
        noise = torch.randn(int(seconds * 16000), generator=torch.Generator().manual_seed(0))
        view = View(Example("0", "1?", ("2",), "2", AudioArray(0.1 * noise, 16000), location="line 0"), "speech")
        if heard:
            assert reader.read(view).features is not None
            continue
        with pytest.raises(BadExampleError, match=r"line 0: the audio LLM's processor cuts off the end .* 5.0 s"):
            reader.read(view)


def test_positions_are_what_stands_at_the_clips(glm: Path) -> None:
    model = built(glm)
    batch = make_batch(model, [100, None, 173])
    with torch.no_grad():
        speech, lengths = model.speech_embeddings(batch)
        embeds = model.embed(batch)["inputs_embeds"]
    assert lengths.tolist() == [12, 21]
    for clip, row in enumerate((0, 2)):
        assert torch.equal(speech[clip, : lengths[clip]], embeds[row, batch.audio_mask[row]])


def template_of(folder: Path, template: str) -> None:
    (folder / "chat_template.jinja").write_text(template)


def test_words_that_number_the_clips_stand_around_it(tmp_path: Path) -> None:
    folder = write_tiny_audio_llm("qwen2_audio", tmp_path)
    template_of(folder, AutoProcessor.from_pretrained(folder).default_chat_template)  # the one on the hub
    front_end = SpeechLLM(str(folder), ear=OwnEar()).front_end
    assert words_around(front_end) == ("Audio 1: <|audio_bos|>", "<|audio_eos|>\n")
    prompt = ChatPrompt(front_end.tokenizer, "Answer.", around=words_around(front_end)).speech()
    before, after = (front_end.tokenizer.decode(ids) for ids in (prompt.before, prompt.after))
    system = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    assert before == f"{system}<|im_start|>user\nAudio 1: <|audio_bos|>"
    assert after == "<|audio_eos|>\nAnswer.<|im_end|>\n<|im_start|>assistant\n"


PARTS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for c in m.content %}{% if c.type == 'audio' %}<|pad|>"
    "{% else %}{{ c.text }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def test_a_template_of_lists_alone_is_read_as_one(glm: Path, tmp_path: Path) -> None:
    shutil.copytree(glm, tmp_path / "parts")
    template_of(tmp_path / "parts", PARTS)
    prompts = []
    for folder in (glm, tmp_path / "parts"):
        front_end = SpeechLLM(str(folder), ear=OwnEar()).front_end
        prompts.append(ChatPrompt(front_end.tokenizer, around=words_around(front_end)))
    whole, parts = prompts
    assert parts.speech("S") == whole.speech("S")
    assert parts.conversation("Q?", "A") == whole.conversation("Q?", "A")
    template_of(tmp_path / "parts", PARTS.replace("{{ c.text }}", ""))
    silent = SpeechLLM(str(tmp_path / "parts"), ear=OwnEar()).front_end
    with pytest.raises(ValueError, match=r"the chat template shows the user's text 0 times"):
        ChatPrompt(silent.tokenizer)


def test_what_cannot_be_is_refused_in_a_line(glm: Path, tiny_llm_dir: Path, model: SpeechLLM, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"CTCAlignment teaches an adaptor where"):
        SpeechLLM(str(glm), ear=OwnEar(), tuning=AdaptorOnly(), objectives=[CTCAlignment()])
    with pytest.raises(ValueError, match=r"model.encoder: OwnEar brings the audio LLM's own"):
        SpeechLLM(str(glm), encoder=model.encoder, ear=OwnEar())
    with pytest.raises(ValueError, match=r"model.encoder: a text LLM hears with an encoder and an adaptor"):
        SpeechLLM(str(tiny_llm_dir))
    with pytest.raises(ValueError, match=r"is an audio LLM; allowed: model.ear: OwnEar"):
        SpeechLLM(str(glm), model.encoder, model.adaptor)
    with pytest.raises(ValueError, match=r"cannot be heard with: it is no audio LLM"):
        SpeechLLM(str(tiny_llm_dir), ear=OwnEar())
    with pytest.raises(ValueError, match=r"adaptor_modules '\*\.nothing' matches no module"):
        SpeechLLM(str(glm), ear=OwnEar(adaptor_modules=["*.nothing"])).configure_model()
    with pytest.raises(ValueError, match=r"data.feature_cache keeps the frames of model.encoder"):
        _ = SpeechLLM(str(glm), ear=OwnEar()).front_end.fingerprint


def test_a_layer_of_the_tower_may_be_the_adaptor(glm: Path) -> None:
    torch.manual_seed(0)
    ear = OwnEar(adaptor_modules=["*.audio_tower.layers.1", "*.multi_modal_projector"])
    chosen = SpeechLLM(str(glm), ear=ear, tuning=AdaptorOnly())
    chosen.configure_model()
    names = {name for name, parameter in chosen.named_parameters() if parameter.requires_grad}
    assert {name.split(".")[2] for name in names} == {"audio_tower", "multi_modal_projector"}
    assert not any("layers.0." in name for name in names)
    assert len(names) + len(list(chosen.encoder.parameters())) == len(list(built(glm).encoder.parameters())) + len(
        list(built(glm).adaptor.parameters())
    )


def test_prompts_stand_as_the_template_has_them_with_a_system_prompt(glm: Path) -> None:
    front_end = SpeechLLM(str(glm), ear=OwnEar()).front_end
    prompt = ChatPrompt(front_end.tokenizer, around=words_around(front_end))
    before = front_end.tokenizer.decode(prompt.speech("Be brief.").before)
    assert before == "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n"
    assert front_end.vocabulary is None
    assert built(glm).front_end.vocabulary == ROWS


# ------------------------------------------------------------------ beside a text base


@pytest.fixture(scope="module")
def base(glm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The text LLM that it could have come from: other weights, and fewer rows of the vocabulary."""
    folder = tmp_path_factory.mktemp("base")
    llm = open_causal_lm(str(glm), torch.float32)
    llm.resize_token_embeddings(400)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in llm.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.02)
    llm.save_pretrained(folder)
    AutoTokenizer.from_pretrained(glm).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("tuning", [FullFineTuning, lambda: LoRA(r=2)], ids=["full", "lora"])
def test_text_is_held_against_the_base(tuning: Any, glm: Path, base: Path) -> None:
    model = built(glm, tuning(), base=str(base))
    texts = make_batch(model, [None, None])
    llm = AutoModelForCausalLM.from_pretrained(base)
    labels = texts.labels[:, 1:]
    with torch.no_grad():
        inputs = {"input_ids": texts.input_ids, "attention_mask": texts.attention_mask}
        teacher, student = (one(**inputs).logits[:, :-1].log_softmax(-1) for one in (llm, model.llm))
        divergence = (teacher.exp() * (teacher - student[..., :400])).sum(-1) * (labels != -100)
        found = model.divergences(texts)
        torch.testing.assert_close(found.forgetting, divergence.sum(dim=1), rtol=1e-4, atol=1e-5)
        assert found.forgetting.min() > 0.01
        sums, tokens = model.untouched_losses(texts)
        wanted = llm(**inputs, labels=texts.labels).loss * tokens.sum()
        torch.testing.assert_close(sums.sum(), wanted, rtol=1e-4, atol=1e-4)
    assert model.reference.needs_copy
    assert model.reference.fingerprint != built(glm, tuning()).reference.fingerprint
    if tuning is FullFineTuning:
        assert model.way_back().names == []  # what training moved is counted from where it began
        assert len(model.reference.copy().get_input_embeddings().weight) == ROWS


def test_distillation_is_from_the_base(glm: Path, base: Path) -> None:
    model = built(glm, LoRA(r=2), base=str(base), objectives=[AnswerCrossEntropy(), TextTwinDistillation()])
    batch = make_batch(model, CLIPS, twins=True)
    total = model.step_total(batch)
    total.loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)
    other = built(glm, LoRA(r=2), objectives=[AnswerCrossEntropy(), TextTwinDistillation()])
    assert total.values != other.step_total(batch).values


def test_a_base_that_writes_text_with_other_ids_is_refused(glm: Path, tiny_llm_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"model.llm '.*' and model.base '.*' write the same text with other ids"):
        SpeechLLM(str(glm), ear=OwnEar(), base=str(tiny_llm_dir))
    with pytest.raises(OSError, match=r"model.base: '.*' cannot be read"):
        SpeechLLM(str(glm), ear=OwnEar(), base=str(tmp_path / "none"))
    (tmp_path / "empty").mkdir()
    for name, why in (
        ("none", "it does not exist"),
        ("empty", "Couldn't instantiate the backend tokenizer from one of:"),
    ):
        with pytest.raises(OSError, match="cannot be read") as refused:
            SpeechLLM(str(glm), ear=OwnEar(), base=str(tmp_path / name))
        path = tmp_path / name
        told = f"model.base: '{path}' cannot be read: {why} (its tokenizer is needed wherever the run is used)"
        assert str(refused.value) == told


# ------------------------------------------------------------------ runs


@pytest.mark.parametrize(
    ("name", "tuning"),
    [
        ("glmasr", lambda: FullFineTuning(train_encoder=True)),
        ("granite_speech", lambda: LoRA(r=2, gate=SpeechTurns(), parts=ALL)),  # batch norms count in its encoder
    ],
    ids=["full", "lora of all, gated"],
)
def test_a_resumed_run_repeats_every_loss(name: str, tuning: Any, tmp_path: Path) -> None:
    folder = write_tiny_audio_llm(name, tmp_path / name)
    data, saved = make_data(tmp_path / "data"), tmp_path / "three.ckpt"

    def fit(seed: int, checkpoint: Path | None) -> tuple[list[float], SpeechLLM]:
        losses = Losses(None if checkpoint else saved, 3)
        trainer = make_trainer(tmp_path / "run", [losses], max_steps=5, max_epochs=-1, limit_val_batches=0)
        torch.manual_seed(seed)  # nothing may hang on how the resumed run was initialised
        optimizer = {"optimizer": lambda groups: torch.optim.AdamW(groups, lr=0.02)}
        model = SpeechLLM(str(folder), ear=OwnEar(), tuning=tuning(), **optimizer)
        model.configure_model()
        for module in model.modules():  # without dropout: what restores the random state is no part of this run
            for rate in ("p", "attention_dropout"):
                if hasattr(module, rate):
                    setattr(module, rate, 0.0)
        trainer.fit(model, data, ckpt_path=checkpoint and str(checkpoint), weights_only=False)
        return losses.values, model

    whole, model = fit(1, None)
    rest, resumed = fit(2, saved)
    assert len(set(whole)) == 5
    assert rest == whole[3:]
    other = resumed.state_dict()
    assert not [name for name, tensor in model.state_dict().items() if not torch.equal(tensor, other[name])]
    again = SpeechLLM.load_from_checkpoint(saved, weights_only=False)  # the ear is built anew
    assert again.ear.whole(again.llm) is not model.ear.whole(model.llm)
