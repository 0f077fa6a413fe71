"""Wrong settings: the line that a user sees for each."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from jsonargparse import Namespace
from lightning.pytorch.callbacks import EarlyStopping

from textkeep.cli.errors import said_by_lightning
from textkeep.cli.main import main
from textkeep.cli.parse_errors import explain
from textkeep.cli.trainer_checks import RULES, check_trainer
from textkeep.foundation.errors import UserError


def callback(name: str = "RunCheckpoint", **options: Any) -> dict[str, Any]:
    return {"trainer": {"callbacks": [{"class_path": name, "init_args": options}]}}


IN_A_FILE: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "root key": (
        {"trainr": {"max_steps": 1}},
        ("no option 'trainr' (did you mean 'trainer'?); allowed:", "seed_everything"),
    ),
    "trainer key": ({"trainer": {"max_epoch": 1}}, ("trainer has no option 'max_epoch' (did you mean 'max_epochs'?)",)),
    "model key": ({"model": {"encodr": 1}}, ("model has no option 'encodr' (did you mean 'encoder'?); allowed: adap",)),
    "data key": (
        {"data": {"tokens_per_btch": 1}},
        ("data has no option 'tokens_per_btch' (did you mean 'tokens_per_",),
    ),
    "type": ({"trainer": {"max_epochs": "abc"}}, ("trainer.max_epochs: 'abc' does not fit; allowed: int, null",)),
    "choice": (
        {"data": {"train_modalities": "smell"}},
        ("data.train_modalities: 'smell' does not fit; allowed: speech, t",),
    ),
    "choices": (
        {"trainer": {"precision": "bf17"}},
        ("trainer.precision: 'bf17' does not fit; allowed: 64,", "bf16-mixed"),
    ),
    "class": (
        {"model": {"encoder": {"class_path": "Whisper"}}},
        ("model.encoder: no class 'Whisper'", "HFEncoder, WhisperEn"),
    ),
    "kind of class": (
        {"model": {"encoder": {"class_path": "torch.nn.Linear"}}},
        ("model.encoder: torch.nn.Linear is not a subclass of SpeechEncoder\n",),
    ),
    "class's option": (
        {"model": {"encoder": {"class_path": "WhisperEncoder", "init_args": {"sourc": "x"}}}},
        ("model.encoder: WhisperEncoder has no option 'sourc' (did you mean 'source'?); allowed: padded, source",),
    ),
    "class's type": (
        {"model": {"adaptor": {"class_path": "ConcatMLP", "init_args": {"stack": "x"}}}},
        ("model.adaptor.stack: 'x' does not fit; allowed: int",),
    ),
    "inherited option": (
        {"model": {"tuning": {"class_path": "OPLoRA", "init_args": {"alfa": 8}}}},
        ("model.tuning: OPLoRA has no option 'alfa' (did you mean 'alpha'?); allowed: adaptor_lr, alpha,",),
    ),
    "inherited option's type": (
        {"model": {"tuning": {"class_path": "QLoRA", "init_args": {"dropout": "much"}}}},
        ("model.tuning.dropout: 'much' does not fit; allowed: number",),
    ),
    "callback": (
        callback("RunCheckpoin"),
        ("trainer.callbacks: no class 'RunCheckpoin' (did you mean 'RunCheckpoint'?)",),
    ),
    "callback's option": (
        callback(dirpat="x"),
        ("trainer.callbacks: RunCheckpoint has no option 'dirpat' (did you mean 'dirpath'?); allowed: dirpath, every",),
    ),
    "callback's choice": (callback(mode="foo"), ("trainer.callbacks.mode: 'foo' does not fit; allowed: min, max",)),
    "callback's type": (
        callback(every_n_train_steps="x"),
        ("trainer.callbacks.every_n_train_steps: 'x' does not fit; allowed: int, null",),
    ),
    "objective's option": (
        {"model": {"objectives": [{"class_path": "CTCAlignment", "init_args": {"weigh": 1}}]}},
        ("model.objectives: CTCAlignment has no option 'weigh' (did you mean 'weight'?)",),
    ),
    "optimizer's option": (
        {"model": {"optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lrr": 1}}}},
        ("model.optimizer: AdamW has no option 'lrr' (did you mean 'lr'?); allowed: amsgrad",),
    ),
    "optimizer": (
        {"model": {"optimizer": {"class_path": "torch.optim.AdamX"}}},
        ("model.optimizer: torch.optim has no 'AdamX' (did you mean 'Adam'?); it has: ASGD, ",),
    ),
    "source": (
        {"data": {"train": {"class_path": "HFDatase"}}},
        ("data.train: no class 'HFDatase' (did you mean 'HFDataset'?); allowed: HFDataset, LlamaOmniJSON, Manifest",),
    ),
    "number": (
        {"model": {"optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": "fast"}}}},
        ("model.optimizer.lr: 'fast' does not fit; allowed: number",),
    ),
    "pair": (
        {"model": {"optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1, "betas": 0.9}}}},
        ("model.optimizer.betas: '0.9' does not fit; allowed: tuple",),
    ),
    "class inside a class": (
        callback("EvaluationSuite", evaluations={"a": {"class_path": "PlainTextLos"}}),
        ("trainer.callbacks.evaluations: no class 'PlainTextLos' (did you mean 'PlainTextLoss'?); allowed: Cascade",),
    ),
    "class without a module": (
        callback("no_such_module.Mine"),
        ("trainer.callbacks: no_such_module.Mine cannot be imported: No module named 'no_such_module' (is the folder",),
    ),
    "optimizer without a module": (
        {"model": {"optimizer": {"class_path": "no_such_module.Adam8bit", "init_args": {"lr": 0.1}}}},
        ("model.optimizer: no_such_module.Adam8bit cannot be imported: No module named 'no_such_module' (is the",),
    ),
    "class whose module fails": (
        {"model": {"encoder": {"class_path": "failing_module.Mine"}}},
        ("model.encoder: failing_module.Mine cannot be imported: ", "failing_module.py:1: RuntimeError: no licence"),
    ),
    "class whose module lacks a library": (
        {"model": {"tuning": {"class_path": "needy_module.Mine"}}},
        (
            "model.tuning: needy_module.Mine cannot be imported: ",
            "needy_module.py:1: No module named 'no_such_library'\n",
        ),
    ),
    "class whose module is no Python": (
        {"data": {"train": {"class_path": "broken_module.Mine"}}},
        ("data.train: broken_module.Mine cannot be imported: ", "broken_module.py:2: SyntaxError: "),
    ),
    "class that its module does not have": (
        {"model": {"tuning": {"class_path": "FullFineTuning", "init_args": {"rates": "whole_module.Rate"}}}},
        ("model.tuning.rates: whole_module has no 'Rate' (did you mean 'Rates'?); it has: Rates, Step\n",),
    ),
    "module that its package does not have": (
        callback("textkeep.callback.Retention"),
        ("trainer.callbacks: textkeep has no 'callback' (did you mean 'callbacks'?); it has: ",),
    ),
    "function for a class inside a class": (
        callback("EvaluationSuite", evaluations={"a": {"class_path": "whole_module.helper"}}),
        ("trainer.callbacks.evaluations: whole_module.helper is not a subclass of Evaluation\n",),
    ),
    "callback's required option": (callback("Timer", duration=3), ("trainer.callbacks.duration: '3' does not fit",)),
    "class without a required option": (
        callback("EvaluationSuite"),
        ("trainer.callbacks: EvaluationSuite: the following arguments are required: evaluations",),
    ),
    "nothing for a required key": ({"model": {"llm": None}}, ("the following arguments are required: model.llm",)),
}

MODULES = {
    "failing_module": "raise RuntimeError('no licence')",
    "needy_module": "import no_such_library",
    "broken_module": "class Mine:\n    pass pass",
    "whole_module": "from lightning.pytorch import Callback\nclass Rates: ...\nclass Step: ...\ndef helper(): ...",
}

ON_THE_LINE: dict[str, tuple[list[str], str]] = {
    "abbreviation": (["--trainer.max_epoch", "3"], "trainer has no option 'max_epoch' (did you mean 'max_epochs'?)"),
    "unknown flag": (["--model.lm=x"], "model has no option 'lm' (did you mean 'llm'?)"),
    "stray word": (["quickstart"], "unrecognized arguments: quickstart"),
    "type": (["--trainer.max_steps", "many"], "trainer.max_steps: 'many' does not fit; allowed: int"),
    "class": (["--model.encoder", "Foo"], "model.encoder: no class 'Foo'; allowed: HFEncoder, WhisperEncoder"),
    "no value": (["--ckpt_path"], "argument --ckpt_path: expected one argument"),
    "number": (["--model.optimizer.init_args.lr", "fast"], "model.optimizer.lr: 'fast' does not fit; allowed: number"),
    "option before its class": (
        ["--model.tuning.init_args.adaptor_lr", "1", "--model.tuning", "FullFineTuning"],
        "model.tuning.adaptor_lr: no class is chosen yet; allowed: after --model.tuning CLASS",
    ),
    "no file": (["--config", "nothere.yaml"], "nothere.yaml: no such config file"),
    "no config's name": (["--config"], "argument -c/--config: expected one argument"),
    "answers of no length": (
        ["--model.max_new_tokens", "0"],
        "model.max_new_tokens: 0 does not fit; allowed: at least 1",
    ),
    "no such LLM": (["--model.llm", "no/such-llm"], "model.llm: 'no/such-llm' cannot be read: "),
    "no such encoder": (
        ["--model.encoder", "WhisperEncoder", "--model.encoder.source", "no/such"],
        "WhisperEncoder: 'no/such' cannot be read: ",
    ),
    "no such speech model": (
        ["--model.encoder", "HFEncoder", "--model.encoder.source", "no/such"],
        "HFEncoder: 'no/such' cannot be read: ",
    ),
    "a file for a directory": (
        ["--trainer.default_root_dir", __file__],
        "test_cli_errors.py is a file; allowed: a run directory, new or not",
    ),
}


def complaint(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    try:
        code: object = main(["fit", *words])
    except SystemExit as end:  # as argparse ends
        code = end.code
    out, err = capsys.readouterr()
    assert code == 2
    assert out == ""
    assert err.startswith("textkeep: error: ")
    assert err.count("\n") == 1
    return err.removeprefix("textkeep: error: ")


@pytest.mark.parametrize("case", IN_A_FILE)
def test_a_wrong_setting_in_a_file(
    case: str, tiny_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    for name, text in MODULES.items():
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.delitem(sys.modules, name, raising=False)
    settings, wanted = IN_A_FILE[case]
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(yaml.safe_dump(settings))
    line = complaint(["--config", str(tiny_config), "--config", str(wrong)], capsys)
    assert all(text in line for text in wanted), line


@pytest.mark.parametrize("case", ON_THE_LINE)
def test_a_wrong_word_on_the_command_line(case: str, tiny_config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words, wanted = ON_THE_LINE[case]
    assert wanted in complaint(["--config", str(tiny_config), *words], capsys)


def test_broken_yaml_names_the_file_and_line(
    tiny_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("trainer:\n  callbacks: [1, 2\nmodel: 3\n")
    line = complaint(["--config", str(tiny_config), f"--config={broken}"], capsys)
    assert f"{broken}:3: " in line


TRAINER = {
    "gradient_clip_val": -1,
    "accumulate_grad_batches": 0,
    "val_check_interval": 0,
    "check_val_every_n_epoch": 0,
    "log_every_n_steps": -1,
    "reload_dataloaders_every_n_epochs": -1,
    "num_nodes": 0,
    "num_sanity_val_steps": -2,
    "min_steps": -1,
    "min_epochs": -1,
}


@pytest.mark.parametrize("option", RULES)
def test_a_number_that_lightning_cannot_work_with(option: str) -> None:
    value = TRAINER[option]
    with pytest.raises(UserError, match=rf"^trainer\.{option}: {value} does not fit; allowed: \w"):
        check_trainer(Namespace({option: value}))
    check_trainer(Namespace({option: None}))
    check_trainer(Namespace({option: 1}))


def test_wrong_numbers_leave_no_directory(tiny_config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--trainer.gradient_clip_val", "-1"], ["--trainer.accumulate_grad_batches", "0"]):
        assert "does not fit; allowed: a" in complaint(["--config", str(tiny_config), *words], capsys)
    assert not (tiny_config.parent / "runs").exists()


def test_only_what_lightning_raises_itself_is_a_message_for_the_user() -> None:
    stop = EarlyStopping("val_loss")
    with pytest.raises(RuntimeError, match="val_loss") as said:
        stop._validate_condition_metric({"train/loss": torch.zeros(1)})
    assert said_by_lightning(said.value)
    with pytest.raises(AttributeError) as defect:
        stop._validate_condition_metric(None)
    assert not said_by_lightning(defect.value)
    assert not said_by_lightning(RuntimeError("raised by nobody"))


def test_a_wrong_accelerator_is_one_line(tiny_config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--config", str(tiny_config), "--trainer.accelerator", "gpux"]) == 2
    err = capsys.readouterr().err.splitlines()[-1]
    assert "textkeep: error: You selected an invalid accelerator name" in err
    assert not (tiny_config.parent / "runs" / "t").exists()


@pytest.mark.parametrize(
    ("words", "refused"),
    [
        (["--trainer.strategy", "fsdp"], "trainer.strategy: FSDPStrategy is not supported"),
        (["--trainer.strategy", "deepspeed_stage_2"], "trainer.strategy: DeepSpeedStrategy is not supported"),
        (
            ["--trainer.strategy", '{"class_path": "lightning.pytorch.strategies.ModelParallelStrategy"}'],
            "trainer.strategy: ModelParallelStrategy is not supported",
        ),
        (["--trainer.strategy", "ddp_notebook"], "trainer.strategy: processes that are started by fork are not"),
        (["--trainer.precision", "16-true"], "trainer.precision: 16-true is not supported"),
    ],
)
def test_what_would_train_something_else_is_refused_in_one_line(
    words: list[str], refused: str, tiny_config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", "--config", str(tiny_config), *words]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("textkeep: error: ")]
    assert line.startswith(f"textkeep: error: {refused}")
    assert not (tiny_config.parent / "runs" / "t").exists()


def test_a_class_inside_a_class_that_refuses_its_settings_is_one_line(
    tiny_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rates = {"class_path": "ImportanceRates", "init_args": {"probe": "speech", "strength": 2}}
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(
        yaml.safe_dump({"model": {"tuning": {"class_path": "FullFineTuning", "init_args": {"rates": rates}}}})
    )
    assert main(["fit", "--config", str(tiny_config), "--config", str(wrong)]) == 2
    err = capsys.readouterr().err.splitlines()[-1]
    assert err == "textkeep: error: ImportanceRates: strength is 2.0, but must lie in [0, 1]"


MAKERS = """
from torch.optim import Optimizer
def nothing(params) -> Optimizer: return list(params)
def wrong(params: str) -> Optimizer: return params + 1
def silent(params): return None
"""


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("nothing", "nothing gives no optimizer but list; allowed: a class of"),
        ("wrong", "wrong takes no parameter groups (can only concatenate list"),
        ("silent", "makers.silent is not annotated as one that returns Optimizer; allowed: a class of"),
    ],
)
def test_a_function_that_gives_no_optimizer_is_one_line(
    function: str,
    said: str,
    tiny_config: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "makers.py").write_text(MAKERS)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump({"model": {"optimizer": f"makers.{function}"}}))
    words = ["--config", str(tiny_config), "--config", str(tmp_path / "wrong.yaml"), "--trainer.logger", "false"]
    try:
        code: object = main(["fit", *words])
    except SystemExit as end:  # as argparse ends
        code = end.code
    assert code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("textkeep: error: ")]
    assert line.startswith(f"textkeep: error: model.optimizer: {said}")
    assert not (tiny_config.parent / "runs" / "t").exists()


def test_a_class_that_refuses_among_others_is_one_line(
    tiny_config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from lightning.fabric.loggers import tensorboard

    monkeypatch.setattr(tensorboard, "_TENSORBOARD_AVAILABLE", False)
    monkeypatch.setattr(tensorboard, "_TENSORBOARDX_AVAILABLE", False)
    overlay = Path(__file__).parents[2] / "configs/logger/tensorboard.yaml"
    assert main(["fit", "--config", str(tiny_config), "--config", str(overlay)]) == 2
    err = capsys.readouterr().err.splitlines()[-1]
    assert err.startswith("textkeep: error: TensorBoardLogger: Neither `tensorboard` nor `tensorboardX` is available.")


def test_a_text_only_manifest_names_the_setting(
    tiny_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.jsonl").write_text('{"id": "a", "question": "Who?", "answers": ["x"]}\n')
    assert main(["fit", "--config", str(tiny_config), "--data.train", str(tmp_path / "text.jsonl")]) == 2
    assert "--data.train_modalities text" in capsys.readouterr().err.splitlines()[-1]


def test_an_unknown_wording_is_shown_whole() -> None:
    assert explain('Parser key "a.b":\n  something  new\n', {}) == "a.b: something new"
