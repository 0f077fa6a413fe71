"""The recipes at 1B and 8B train as they stand: tiny random models of the very classes, data of the same columns."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import soundfile
import yaml

from tests.support.house import ROOT
from tests.support.processes import Textkeep
from tests.support.tiny_llama3 import write_tiny_large_v3, write_tiny_llama3
from textkeep.datamodules.sources import HFDataset
from textkeep.datamodules.sources.bad_examples import BadExamples
from textkeep.runs.study.spec import read_study

RECIPES = ("llama_omni_1b", "llama_omni_8b", "paper_1b", "paper_8b")
STUDIES = ("1b", "8b")


def recipe(name: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / f"configs/{name}.yaml").read_text(encoding="utf-8"))


# ------------------------------------------------------------------ what they say


@pytest.mark.parametrize("name", RECIPES)
def test_a_step_has_the_papers_32_instructions(name: str) -> None:
    found = recipe(name)
    trainer, data = found["trainer"], found["data"]
    assert data["max_examples_per_batch"] * trainer["accumulate_grad_batches"] * trainer["devices"] == 32
    assert found["model"]["lr_schedule"] == "cosine"
    assert found["model"]["warmup_ratio"] == 0.03
    assert {"indomain_text", "heldout_text"} == set(data["probes"])
    assert trainer["max_epochs"] == 3


@pytest.mark.parametrize("size", STUDIES)
def test_the_studies_have_the_papers_arms_and_controls(size: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    study = read_study(ROOT / f"benchmarks/paper/{size}.yaml")
    arms = {arm.name: arm for arm in study.arms}
    assert {"full", "layer_rates", "uniform", "reversed"} < set(arms)
    ranks = {
        arm.settings["model.tuning.init_args.r"]: arm.settings["model.tuning.init_args.alpha"]
        for arm in study.arms
        if "model.tuning.init_args.r" in arm.settings
    }
    if size == "8b":  # its own rank is the config's
        tuning = recipe("paper_8b")["model"]["tuning"]["init_args"]
        ranks[tuning["r"]] = tuning["alpha"]
    assert ranks == ({8: 16} if size == "1b" else {8: 16, 16: 32, 24: 48})
    for name in ("layer_rates", "uniform", "reversed"):
        (overlay,) = arms[name].configs
        rates = yaml.safe_load((ROOT / overlay).read_text())["model"]["tuning"]["init_args"]["rates"]["init_args"]
        assert rates.get("of", {"init_args": rates})["init_args"]["strength"] == 0.4
        assert set(arms[name].settings.values()) == {"indomain_text"}
    assert ["layer_rates", "uniform"] in [list(pair) for pair in study.contrasts]


# ------------------------------------------------------------------ they train


def clip(number: int, rate: int) -> dict[str, Any]:
    file = io.BytesIO()
    noise = 0.05 * np.random.default_rng(number).standard_normal(rate + number * rate // 10)
    soundfile.write(file, noise, rate, format="WAV")
    return {"bytes": file.getvalue(), "path": None}


def table(rate: int, audio: tuple[str, str], **columns: list[Any]) -> datasets.Dataset:
    """Six rows with clips in two columns: the question and the answer."""
    count = len(next(iter(columns.values())))
    clips = {name: [clip(number, rate) for number in range(count)] for name in audio}
    made = datasets.Dataset.from_dict({**columns, **clips})
    for name in audio:
        made = made.cast_column(name, datasets.Audio(decode=False))  # to encode samples it would need torchcodec
    return made


QUESTIONS = [f"What is the {number}th question?" for number in range(6)]
ANSWERS = [f"The {number}th answer, and a word more." for number in range(6)]


def hub(path: str) -> datasets.Dataset:
    """A data set with the columns of one on the hub."""
    if path == "yuekai/InstructS2S-200K":
        more = {"id": list("abcdef"), "round": [1, 1, 1, 1, 1, 2], "speech_token": [[1, 2]] * 6}
        return table(16000, ("question_audio", "answer_audio"), question=QUESTIONS, answer=ANSWERS, **more)
    if path == "gpt-omni/VoiceAssistant-400K":
        names = ["qa"] * 5 + ["identity"]
        more = {"split_name": names, "index": [str(n) for n in range(6)], "round": [1] * 6}
        snac = ["#" * 5000] * 6
        return table(22050, ("question_audio",), question=QUESTIONS, answer=ANSWERS, answer_snac=snac, **more)
    if path == "GSQA/spoken-alpaca-gpt4":
        return table(22050, ("input_audio", "output_audio"), speech_input=QUESTIONS, output=ANSWERS)
    if path == "TwinkStart/llama-questions":
        return table(16000, ("audio",), Questions=QUESTIONS, Answer=ANSWERS)
    assert path == "TwinkStart/speech-web-questions"
    return table(16000, ("audio",), question=QUESTIONS, answers=[[a, "another"] for a in ANSWERS])


def localized(value: Any, folder: Path) -> Any:
    """The same settings, with each data set of the hub as a folder here."""
    if isinstance(value, list):
        return [localized(item, folder) for item in value]
    if not isinstance(value, dict):
        return value
    if value.get("class_path") == "HFDataset":
        options = value["init_args"]
        local = folder / options["path"].replace("/", "--")
        if not local.exists():
            datasets.DatasetDict({options["split"]: hub(options["path"])}).save_to_disk(str(local))
        return {**value, "init_args": {**options, "path": str(local)}}
    return {key: localized(item, folder) for key, item in value.items()}


@pytest.fixture
def tiny(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A recipe on tiny models, three steps long."""
    found = localized(recipe(request.param), tmp_path)
    llm = write_tiny_llama3(tmp_path / "llm", tied=request.param.endswith("1b"))
    found["model"]["llm"] = str(llm)
    found["model"]["encoder"]["init_args"]["source"] = str(write_tiny_large_v3(tmp_path / "whisper"))
    found["trainer"] |= {"accelerator": "cpu", "max_steps": 3, "max_epochs": -1, "limit_val_batches": 1}
    found["trainer"] |= {"val_check_interval": 1.0, "default_root_dir": str(tmp_path / "run"), "log_every_n_steps": 1}
    found["data"] |= {"num_workers": 0, "val": found["data"]["train"], "eval_limit": 2}
    for probe in found["data"]["probes"].values():
        probe["examples"] = 4
    for callback in found["trainer"]["callbacks"]:
        if callback["class_path"] == "Retention":
            callback["init_args"] = {"max_items": 2, "max_new_tokens": 2}
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(found))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("tiny", RECIPES, indirect=True)
def test_it_trains_three_steps(tiny: Path, textkeep: Textkeep) -> None:
    done = textkeep("fit", "--config", tiny, TEXTKEEP_DEBUG="1")
    assert done.returncode == 0, done.stderr
    with (tiny.parent / "run/metrics.csv").open() as file:
        losses = [float(row["train/loss"]) for row in csv.DictReader(file) if row.get("train/loss")]
    assert len(losses) == 3
    assert np.isfinite(losses).all()


# ------------------------------------------------------------------ rows of a data set


def read(tmp_path: Path, **options: Any) -> list[Any]:
    folder = tmp_path / "set"
    if not folder.exists():
        hub("gpt-omni/VoiceAssistant-400K").save_to_disk(str(folder))
    columns = {"question": "question", "answers": "answer", "audio": "question_audio"}
    return HFDataset(str(folder), columns=columns, **options).read(BadExamples())


def test_rows_are_chosen_by_what_stands_in_a_column(tmp_path: Path) -> None:
    assert [e.question for e in read(tmp_path, where_not={"split_name": "identity"})] == QUESTIONS[:5]
    assert [e.question for e in read(tmp_path, where={"index": [0, 5]})] == [QUESTIONS[0], QUESTIONS[5]]
    assert read(tmp_path, where={"index": 2}, where_not={"split_name": ["qa"]}) == []


def test_a_column_that_is_left_out_is_no_metadata(tmp_path: Path) -> None:
    assert set(read(tmp_path)[0].metadata) == {"answer_snac", "split_name", "index", "round"}
    assert set(read(tmp_path, leave_out=["answer_snac"])[0].metadata) == {"split_name", "index", "round"}


def test_a_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"where: no column 'turn' \(allowed: .*round"):
        read(tmp_path, where={"turn": 1})
