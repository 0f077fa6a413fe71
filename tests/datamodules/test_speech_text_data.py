from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonargparse
import lightning as L
import pytest
import soundfile
import torch
from lightning.pytorch.loggers import CSVLogger

from textkeep.datamodules import AudioArray, Batch, Example, HFDataset, LlamaOmniJSON, Manifest, Probe, SpeechTextData
from textkeep.datamodules.sources.bad_examples import BadExampleError

from .conftest import EnergyFrontEnd, ManifestMaker, tone


def connected(front_end: EnergyFrontEnd, **arguments: Any) -> SpeechTextData:
    data = SpeechTextData(**arguments)
    data.connect(front_end)
    return data


def ids(loader: Any) -> list[str]:
    return [identity for batch in loader for identity in batch.ids]


@pytest.mark.parametrize("modality", ["speech", "text", "both"])
def test_train_gives_each_example_in_the_modalities(
    make_manifest: ManifestMaker, front_end: EnergyFrontEnd, modality: Any
) -> None:
    data = connected(front_end, train=str(make_manifest(9)), train_modalities=modality, tokens_per_batch=400)
    data.setup("fit")
    seen = [(i, m) for batch in data.train_dataloader() for i, m in zip(batch.ids, batch.modality, strict=True)]
    modalities = ["speech", "text"] if modality == "both" else [modality]
    assert sorted(seen) == sorted((f"questions-{i}", m) for i in range(9) for m in modalities)


def test_the_budget_holds_for_the_real_tensors(make_manifest: ManifestMaker, front_end: EnergyFrontEnd) -> None:
    data = connected(front_end, train=str(make_manifest(40)), train_modalities="both", tokens_per_batch=500)
    loader = data.train_dataloader()
    for batch in [*loader, *loader]:
        assert batch.input_ids.numel() <= 500
        assert len(set(batch.modality)) == 1
        assert int(batch.audio_mask.sum()) == sum(n // 10 for n in batch.feature_lengths.tolist())


def test_evaluation_gives_matched_pairs(make_manifest: ManifestMaker, front_end: EnergyFrontEnd) -> None:
    data = connected(front_end, val=str(make_manifest(15)), tokens_per_batch=400)
    loaders = data.val_dataloader()
    assert list(loaders) == ["speech", "text"]
    pairs = list(zip(loaders["speech"], loaders["text"], strict=True))
    assert len(pairs) >= 1
    for speech, text in pairs:
        assert speech.ids == text.ids
        assert (set(speech.modality), set(text.modality)) == ({"speech"}, {"text"})
        assert (speech.labels >= 0).sum() == (text.labels >= 0).sum()
    assert sorted(ids(loaders["text"])) == sorted(example.id for example in data.eval_pairs())
    prompts = data.prompt_loaders()
    assert ids(prompts["speech"]) == ids(prompts["text"]) == ids(loaders["speech"])
    assert all((batch.labels == -100).all() for batch in prompts["speech"])


def test_eval_limit_is_a_fixed_choice(make_manifest: ManifestMaker, front_end: EnergyFrontEnd) -> None:
    path = str(make_manifest(12))
    chosen = [e.id for e in SpeechTextData(val=path, eval_limit=5).eval_pairs()]
    assert len(chosen) == 5
    assert chosen == [e.id for e in SpeechTextData(test=path, eval_limit=5, seed=3).eval_pairs()]
    assert chosen != [f"questions-{i}" for i in range(5)]


def test_text_only_and_speech_only_data(
    write_lines: Callable[..., Path], front_end: EnergyFrontEnd, make_manifest: ManifestMaker
) -> None:
    text = write_lines(*[{"id": str(i), "question": "What?", "answers": ["x"]} for i in range(5)])
    data = connected(front_end, train=str(text), train_modalities="both", val=str(text))
    assert sorted(ids(data.train_dataloader())) == list("01234")
    assert list(data.val_dataloader()) == ["text"]
    with pytest.raises(ValueError, match="train: none of the 5 examples has the modality speech"):
        connected(front_end, train=str(text)).train_dataloader()
    mixed = connected(front_end, train=[str(text), str(make_manifest(3))])
    with pytest.warns(UserWarning, match="train: 5 of 8 examples lack speech or text and are left out"):
        assert len(ids(mixed.train_dataloader())) == 3
    assert len(SpeechTextData(val=[str(text), str(make_manifest(3))]).eval_pairs()) == 3


def rank_of(data: SpeechTextData, rank: int, world_size: int) -> SpeechTextData:
    """As if a trainer of several processes had attached the data on this rank."""
    strategy = SimpleNamespace(barrier=lambda: None)
    progress = SimpleNamespace(epoch_progress=SimpleNamespace(current=SimpleNamespace(processed=0)))
    trainer = SimpleNamespace(
        global_rank=rank,
        world_size=world_size,
        strategy=strategy,
        current_epoch=0,
        fit_loop=progress,
        limit_train_batches=1.0,
        loggers=[],
        testing=False,
    )
    data.trainer = trainer  # type: ignore[assignment]
    return data


def test_two_ranks_share_the_data(make_manifest: ManifestMaker, front_end: EnergyFrontEnd) -> None:
    path = str(make_manifest(21))
    ranks = [
        rank_of(connected(front_end, train=path, val=path, train_modalities="both", tokens_per_batch=400), rank, 2)
        for rank in range(2)
    ]
    trained = [list(data.train_dataloader()) for data in ranks]
    assert len(trained[0]) == len(trained[1])
    assert all(a.modality[0] == b.modality[0] for a, b in zip(*trained, strict=True))
    rows = [(i, m) for batches in trained for b in batches for i, m in zip(b.ids, b.modality, strict=True)]
    assert sorted(rows) == sorted((f"questions-{i}", m) for i in range(21) for m in ("speech", "text"))
    for modality in ("speech", "text"):
        shares = [ids(data.val_dataloader()[modality]) for data in ranks]
        assert sorted(shares[0] + shares[1]) == sorted(f"questions-{i}" for i in range(21))
        prompted = [ids(data.prompt_loaders()[modality]) for data in ranks]
        assert prompted == shares


def test_fewer_items_than_ranks(make_manifest: ManifestMaker, front_end: EnergyFrontEnd) -> None:
    path = str(make_manifest(1))
    loaders = [rank_of(connected(front_end, val=path), rank, 2).val_dataloader()["speech"] for rank in range(2)]
    assert [ids(loader) for loader in loaders] == [["questions-0"], []]


def test_probes_depend_on_nothing_else(make_manifest: ManifestMaker, front_end: EnergyFrontEnd) -> None:
    path = str(make_manifest(20))
    probe = Probe(path, "speech", examples=7, seed=1, batch_size=3)
    first = connected(front_end, probes={"p": probe}).probe_batches("p")
    assert [len(batch) for batch in first] == [3, 3, 1]
    assert all(batch.modality == ["speech"] * len(batch) for batch in first)
    other = connected(front_end, train=path, tokens_per_batch=200, seed=9, eval_limit=2, probes={"p": probe})
    again = other.probe_batches("p")
    assert [b.ids for b in again] == [b.ids for b in first]
    assert all(torch.equal(a.features, b.features) for a, b in zip(first, again, strict=True))
    assert other.probe_batches("p") is again
    assert ids(connected(front_end, probes={"p": Probe(path, "speech", 7, seed=2)}).probe_batches("p")) != ids(first)


def test_a_loader_of_any_examples(make_manifest: ManifestMaker, front_end: EnergyFrontEnd) -> None:
    data = connected(front_end)
    clip = AudioArray(torch.from_numpy(tone(0.5)), 16000)
    examples = [Example(str(i), "What?", ("x",), "x", clip) for i in range(3)]
    (batch,) = data.loader(examples, "speech", answers=False)
    assert batch.ids == ["0", "1", "2"]
    (batch,) = data.loader(examples, "text")
    assert batch.modality == ["text"] * 3


def test_prediction_needs_no_answers(
    write_lines: Callable[..., Path], front_end: EnergyFrontEnd, tmp_path: Path
) -> None:
    soundfile.write(tmp_path / "a.wav", tone(0.5), 16000)
    path = write_lines({"id": "a", "question": "What?", "audio": "a.wav"})
    loaders = connected(front_end, predict=str(path)).predict_dataloader()
    assert ids(loaders["speech"]) == ["a"]
    with pytest.raises(ValueError, match='"answers" is None'):
        connected(front_end, test=str(path)).setup("test")


def test_examples_that_cannot_be_planned(make_manifest: ManifestMaker, front_end: EnergyFrontEnd) -> None:
    path = str(make_manifest(10))
    with pytest.raises(
        ValueError, match=r"questions\.jsonl:5: the clip has 2\.1 s; allowed: at most max_seconds = 2 s"
    ):
        connected(front_end, train=path, max_seconds=2.0).train_dataloader()
    with pytest.raises(
        ValueError, match=r"questions\.jsonl:\d+: the example takes \d+ positions; .*tokens_per_batch = 60"
    ):
        connected(front_end, train=path, tokens_per_batch=60).train_dataloader()
    data = connected(front_end, train=path, max_seconds=2.0, on_bad_example="skip")
    with pytest.warns(UserWarning, match="max_seconds"):
        data.train_dataloader()
    assert data.skipped == {"too long": 2}


def test_wrong_settings_are_named(tmp_path: Path, front_end: EnergyFrontEnd, write_lines: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match=r"train_modalities: .sound. \(allowed: speech, text, both\)"):
        SpeechTextData(train_modalities="sound")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"feature_cache .* without speed_perturb"):
        SpeechTextData(feature_cache="cache", speed_perturb=[0.9])
    with pytest.raises(ValueError, match=r"data\.train is not set \(allowed: a manifest"):
        SpeechTextData().setup("fit")
    with pytest.raises(ValueError, match="the data is connected to no model"):
        SpeechTextData(val=str(write_lines({"id": "a", "question": "Q?", "answers": ["x"]}))).val_dataloader()
    with pytest.raises(ValueError, match=r"probe 'q' is not defined in data\.probes \(allowed: none\)"):
        SpeechTextData().probe_batches("q")
    with pytest.raises(
        FileNotFoundError, match=r"spoken-facts/none: the embedded data set has no such split \(allowed"
    ):
        SpeechTextData(train="spoken-facts/none").setup("fit")
    with pytest.raises(ValueError, match="no usable example"):
        SpeechTextData(train=str(write_lines("", name="empty.jsonl"))).setup("fit")
    with pytest.raises(ValueError, match="probe modality: 'sound'"):
        Probe("x", "sound")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="probe examples: 0"):
        Probe("x", examples=0)


def test_one_id_in_two_sources_is_named(write_lines: Callable[..., Path]) -> None:
    line = {"id": "a", "question": "Q?", "answers": ["x"]}
    one, two = write_lines(line, name="one.jsonl"), write_lines(line, name="two.jsonl")
    with pytest.raises(ValueError, match=r"two\.jsonl:1: id 'a' was already used at .*one\.jsonl:1"):
        SpeechTextData(train=[str(one), str(two)]).setup("fit")


class Module(L.LightningModule):
    """Counts what it is given in each stage."""

    def __init__(self, front_end: EnergyFrontEnd) -> None:
        super().__init__()
        self.ready_front_end = front_end
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.rows = {"train": 0, "val": 0, "test": 0, "predict": 0}

    def configure_model(self) -> None:
        self.front_end = self.ready_front_end  # known only from here on, as with a real model

    def training_step(self, batch: Batch, _: int) -> torch.Tensor:
        self.rows["train"] += len(batch)
        return self.weight.sum()

    def validation_step(self, batch: Batch, _: int, dataloader_idx: int = 0) -> None:
        self.rows["val"] += len(batch)

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.rows["test"] += len(batch)

    def predict_step(self, batch: Batch, _: int, dataloader_idx: int = 0) -> list[str]:
        self.rows["predict"] += len(batch)
        return batch.ids

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.filterwarnings("ignore")
def test_every_stage_under_a_trainer(make_manifest: ManifestMaker, front_end: EnergyFrontEnd, tmp_path: Path) -> None:
    path = make_manifest(6)
    (tmp_path / "clips" / "questions-4.wav").write_bytes(b"no sound")
    data = SpeechTextData(*[str(path)] * 4, tokens_per_batch=300, on_bad_example="skip")
    logger = CSVLogger(tmp_path, "logs", "0")
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=2, logger=logger, enable_checkpointing=False, enable_progress_bar=False,
        num_sanity_val_steps=0, log_every_n_steps=1, enable_model_summary=False,
    )  # fmt: skip
    module = Module(front_end)
    trainer.fit(module, datamodule=data)
    trainer.test(module, datamodule=data, verbose=False)
    predicted = trainer.predict(module, datamodule=data)
    assert module.rows == {"train": 10, "val": 22, "test": 11, "predict": 11}
    assert predicted is not None
    assert len(predicted) == 2
    assert data.skipped == {"corrupt clip": 1}
    assert "data/skipped" in (Path(logger.log_dir) / "metrics.csv").read_text().splitlines()[0]
    trainer.fit_loop.max_epochs = 3
    other = EnergyFrontEnd(front_end.tokenizer, feature_dim=9)
    trainer.fit(Module(other), datamodule=data)  # the same data under another model
    assert data.connection.front_end is other


@pytest.mark.filterwarnings("ignore")
def test_overfit_batches_repeat(make_manifest: ManifestMaker, front_end: EnergyFrontEnd) -> None:
    seen: list[list[str]] = []

    class Recorder(Module):
        def training_step(self, batch: Batch, _: int) -> torch.Tensor:
            seen.append(batch.ids)
            return self.weight.sum()

    data = SpeechTextData(train=str(make_manifest(12)), tokens_per_batch=300)
    options: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    L.Trainer(accelerator="cpu", max_epochs=3, overfit_batches=2, **options).fit(Recorder(front_end), datamodule=data)
    assert seen == seen[:2] * 3


def test_yaml_builds_it(make_manifest: ManifestMaker, tmp_path: Path) -> None:
    path = make_manifest(2)
    config = f"""
train: [{path}, {{class_path: HFDataset, init_args: {{path: some/set, split: test, columns: {{audio: clip}}}}}}]
val: {{class_path: Manifest, init_args: {{path: {path}, use_audio: false}}}}
test: {path}
train_modalities: both
noise_snr_db: [5, 20]
probes:
  indomain_text: {{source: {path}, modality: text, examples: 4}}
  speech: {{source: {{class_path: LlamaOmniJSON, init_args: {{path: x.json}}}}, modality: speech}}
"""
    (tmp_path / "data.yaml").write_text(config)
    parser = jsonargparse.ArgumentParser()
    parser.add_class_arguments(SpeechTextData, "data")
    parser.add_argument("--config", action="config")
    (tmp_path / "config.yaml").write_text("data:" + config.replace("\n", "\n  "))
    built = parser.instantiate(parser.parse_args(["--config", str(tmp_path / "config.yaml")]))["data"]
    first, second = built.splits.sources["train"]
    assert first == str(path)
    assert isinstance(second, HFDataset)
    assert second.columns == {"audio": "clip"}
    assert isinstance(built.splits.sources["val"], Manifest)
    assert built.probes["indomain_text"].choose(built.examples("test"))[0].id.startswith("questions")
    assert isinstance(built.probes["speech"].source, LlamaOmniJSON)
    assert built.settings.augment.noise_snr_db == (5.0, 20.0)


@pytest.mark.parametrize("modality", ["text", "speech"])
def test_a_row_that_the_chat_template_refuses_is_named_or_left_out(
    make_manifest: ManifestMaker, front_end: EnergyFrontEnd, modality: Any
) -> None:
    refusal = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    front_end.tokenizer = copy.deepcopy(front_end.tokenizer)
    front_end.tokenizer.chat_template = refusal + front_end.tokenizer.chat_template
    path = make_manifest(6)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[3]["system"] = "Be brief."
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    named = rf"{path.name}:4: .*the chat template refuses \['system', 'user'\]: no system role"
    sources: dict[str, Any] = {"train": str(path), "val": str(path), "train_modalities": modality}
    data = connected(front_end, **sources)
    with pytest.raises(BadExampleError, match=named):
        data.train_dataloader()
    with pytest.raises(BadExampleError, match=named):
        data.val_dataloader()
    with pytest.raises(BadExampleError, match=named):
        data.factory().batches(data.examples("val"), modality, 2)
    data = connected(front_end, **sources, on_bad_example="skip")
    with pytest.warns(UserWarning, match=named):
        seen = {identity for batch in data.train_dataloader() for identity in batch.ids}
    assert seen == {f"questions-{i}" for i in (0, 1, 2, 4, 5)}
    assert {i for loader in data.val_dataloader().values() for batch in loader for i in batch.ids} == seen
    assert data.skipped == {"refused by the chat template": 1}
