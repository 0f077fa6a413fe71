"""The training verbs as real processes, on a tiny model."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.support.processes import Textkeep, child_environment, command
from textkeep.cli.main import main

pytestmark = pytest.mark.slow

STEPS = 40
EXACT = {
    "trainer": {
        "max_steps": STEPS,
        "accumulate_grad_batches": 2,
        "check_val_every_n_epoch": 4,
        "callbacks": [{"class_path": "LogProgress", "init_args": {"every_seconds": 0}}],
    },
    "data": {"tokens_per_batch": 100},
}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def saved(run: Path, step: int) -> dict[str, Any]:
    path = run / "checkpoints" / f"step={step:06d}.ckpt"
    return torch.load(path, weights_only=True)  # whatever a run saves must load without unpickling code


def history(run: Path) -> list[tuple[str, str]]:
    return [(row["step"], row["train/loss"]) for row in rows(run / "metrics.csv") if row["train/loss"]]


def test_a_fit_leaves_a_run_directory(tiny_config: Path, textkeep: Textkeep) -> None:
    done = textkeep("fit", "--config", tiny_config, TEXTKEEP_DEBUG="1")
    assert done.returncode == 0, done.stderr
    run = tiny_config.parent / "runs" / "t"
    kept = {"config.yaml", "checkpoints", "metrics.csv", "wandb", "wandb_run.json", "finished.json"}
    assert {p.name for p in run.iterdir()} == kept
    assert (run / "checkpoints" / "last.ckpt").resolve().name == "step=000003.ckpt"
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["trainer"]["default_root_dir"] == str(run)
    assert config["model"]["encoder"]["class_path"].endswith("WhisperEncoder")
    losses = [float(loss) for _, loss in history(run)]
    assert len(losses) == 3
    assert losses[-1] < losses[0]
    assert "W&B is offline (not logged in)" in done.stderr
    assert "step 3/3" in done.stdout

    again = textkeep("fit", "--config", run / "config.yaml")
    assert again.returncode == 0, again.stderr
    assert f"{run} holds another run: this one goes to {run}-2" in again.stdout
    assert history(run) == history(run.with_name("t-2"))


def test_ctrl_c_leaves_a_checkpoint_from_which_last_continues_exactly(tiny_config: Path, textkeep: Textkeep) -> None:
    exact = tiny_config.with_name("exact.yaml")
    exact.write_text(yaml.safe_dump(EXACT))
    words = ["fit", "--config", tiny_config, "--config", exact]
    whole = textkeep(*words)
    assert whole.returncode == 0, whole.stderr
    whole_run = tiny_config.parent / "runs" / "t"

    part_run = tiny_config.parent / "runs" / "part"
    words += ["--trainer.default_root_dir", part_run]
    child = subprocess.Popen(
        command(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=child_environment()
    )
    assert child.stdout is not None
    for line in child.stdout:
        if line.startswith("step 7/"):
            child.send_signal(signal.SIGINT)
            break
    _, errors = child.communicate(timeout=120)
    assert child.returncode == 130, errors
    assert "Traceback" not in errors
    stopped = int((part_run / "checkpoints" / "last.ckpt").resolve().stem.removeprefix("step="))
    assert 7 <= stopped < STEPS
    first_id = json.loads((part_run / "wandb_run.json").read_text())["id"]

    rest = textkeep(*words, "--ckpt_path", "last")
    assert rest.returncode == 0, rest.stderr
    assert f"continuing {part_run} from " in rest.stdout
    assert f"step={stopped:06d}.ckpt" in rest.stdout
    assert json.loads((part_run / "wandb_run.json").read_text())["id"] == first_id
    one, two = saved(whole_run, STEPS), saved(part_run, STEPS)
    assert one["state_dict"].keys() == two["state_dict"].keys()
    assert all(torch.equal(one["state_dict"][name], two["state_dict"][name]) for name in one["state_dict"])
    assert history(part_run) == history(whole_run)


def test_sigterm_leaves_a_checkpoint_and_143(tiny_config: Path) -> None:
    exact = tiny_config.with_name("exact.yaml")
    exact.write_text(yaml.safe_dump(EXACT))
    child = subprocess.Popen(
        command("fit", "--config", tiny_config, "--config", exact, "--trainer.max_steps", 2000),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=child_environment(),
    )
    assert child.stdout is not None
    for line in child.stdout:
        if line.startswith("step 3/"):
            child.send_signal(signal.SIGTERM)
            break
    child.communicate(timeout=120)
    assert child.returncode == 143
    assert list((tiny_config.parent / "runs" / "t" / "checkpoints").glob("step=*.ckpt"))


def test_ctrl_c_that_reaches_one_of_two_processes_stops_both(tiny_config: Path, textkeep: Textkeep) -> None:
    exact = tiny_config.with_name("exact.yaml")
    exact.write_text(yaml.safe_dump(EXACT))
    words = ["fit", "--config", tiny_config, "--config", exact, "--trainer.devices", "2", "--trainer.strategy", "ddp"]
    child = subprocess.Popen(
        command(*words, "--trainer.max_steps", 2000),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=child_environment(),
    )
    assert child.stdout is not None
    for line in child.stdout:
        if line.startswith("step 3/"):
            child.send_signal(signal.SIGINT)  # the other rank gets none
            break
    _, errors = child.communicate(timeout=120)
    assert child.returncode == 130, errors
    (stopped,) = (tiny_config.parent / "runs" / "t" / "checkpoints").glob("step=*.ckpt")
    assert f"saved {stopped}; --ckpt_path last continues from it" in errors


def test_validate_test_and_predict_write_beside_the_fit(tiny_config: Path, textkeep: Textkeep) -> None:
    run = tiny_config.parent / "runs" / "t"
    assert textkeep("fit", "--config", tiny_config).returncode == 0
    before = (run / "metrics.csv").read_text(), (run / "config.yaml").read_text()
    last = rows(run / "metrics.csv")[-1]
    for verb in ("validate", "test", "predict"):
        done = textkeep(verb, "--config", run / "config.yaml", "--ckpt_path", "last")
        assert done.returncode == 0, done.stderr
    assert before == ((run / "metrics.csv").read_text(), (run / "config.yaml").read_text())
    validated, tested = rows(run / "validate_metrics.csv")[0], rows(run / "test_metrics.csv")[0]
    assert float(validated["val/speech_ce"]) == pytest.approx(float(last["val/speech_ce"]), abs=1e-5)
    assert float(tested["test/text_ce"]) == pytest.approx(float(last["val/text_ce"]), abs=1e-5)  # the same questions
    answers = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
    assert {(a["id"], a["modality"]) for a in answers} == {(f"q{i}", m) for i in range(6) for m in ("speech", "text")}
    assert not list(run.parent.glob("t-*"))


def test_scoring_the_untouched_model_leaves_the_name_to_the_fit(tiny_config: Path, textkeep: Textkeep) -> None:
    assert textkeep("validate", "--config", tiny_config).returncode == 0
    runs = tiny_config.parent / "runs"
    assert [path.name for path in runs.iterdir()] == ["t-validate"]


def test_two_processes_agree_on_the_directory_and_train(tiny_config: Path, textkeep: Textkeep) -> None:
    run = tiny_config.parent / "runs" / "t"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.yaml").write_text("of another run")
    ddp = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--data.tokens_per_batch", "100"]
    done = textkeep("fit", "--config", tiny_config, *ddp)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("holds another run") == 1
    taken = run.with_name("t-2")
    assert {p.name for p in run.parent.iterdir()} == {"t", "t-2"}
    assert len(list((taken / "wandb").glob("offline-run-*"))) == 1
    assert (taken / "checkpoints" / "step=000003.ckpt").is_file()
    assert len(history(taken)) == 3

    rest = textkeep("fit", "--config", taken / "config.yaml", "--ckpt_path", "last", "--trainer.max_steps", "5")
    assert rest.returncode == 0, rest.stderr
    assert (taken / "checkpoints" / "step=000005.ckpt").is_file()

    for devices in ("1", "2"):
        words = ["--config", taken / "config.yaml", "--ckpt_path", "last", "--trainer.devices", devices, "--overwrite"]
        done = textkeep("predict", *words)
        assert done.returncode == 0, done.stderr
        answers = [json.loads(line) for line in (taken / "predictions.jsonl").read_text().splitlines()]
        assert [(a["id"], a["modality"]) for a in answers] == [
            (f"q{i}", m) for i in range(6) for m in ("speech", "text")
        ]
        assert not list(taken.glob("*.tmp"))
    assert len(history(taken)) == 5


def test_a_failed_start_keeps_no_directory(tiny_config: Path, textkeep: Textkeep) -> None:
    done = textkeep("fit", "--config", tiny_config, "--data.train", "nothere.jsonl")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("textkeep: error: nothere.jsonl: ")
    assert not (tiny_config.parent / "runs" / "t").exists()


def test_the_quickstart_runs_on_a_tiny_model(tiny_config: Path, textkeep: Textkeep) -> None:
    root = Path(__file__).resolve().parents[2]
    files = [root / "configs/quickstart.yaml", root / "configs/debug/fast_dev_run.yaml", tiny_config]
    words = [word for file in files for word in ("--config", file)]
    done = textkeep("fit", *words, "--model.adaptor_weights", "null", "--data.probes", "{}")
    assert done.returncode == 0, done.stderr
    assert not (tiny_config.parent / "runs").exists()


def test_a_run_continues_from_another_working_directory_and_its_config_says_so(
    tiny_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")  # which must stop nothing
    settings = yaml.safe_load(tiny_config.read_text())
    settings["trainer"]["default_root_dir"] = "runs/t"
    settings["model"]["tuning"] = {"class_path": "LoRA", "init_args": {"r": 4}}
    tiny_config.write_text(yaml.safe_dump(settings))
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "--config", str(tiny_config)]) == 0
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    go_on = ["fit", "--config", "../runs/t/config.yaml", "--ckpt_path", "last", "--trainer.max_steps", "5"]
    assert main([*go_on, "--model.tuning.init_args.r", "16"]) == 2
    assert "model.tuning.r is 4 in the checkpoint and 16 in the config" in capsys.readouterr().err
    assert main(go_on) == 0
    assert "continuing ../runs/t from ../runs/t/checkpoints/step=000003.ckpt" in capsys.readouterr().out
    run = tmp_path / "runs" / "t"
    assert (run / "checkpoints" / "step=000005.ckpt").is_file()
    assert yaml.safe_load((run / "config.yaml").read_text())["trainer"]["max_steps"] == 5
    assert yaml.safe_load((run / "config.until_step=000003.yaml").read_text())["trainer"]["max_steps"] == 3
    assert not list((tmp_path / "other").iterdir())
    assert main(["fit", "--config", str(tiny_config), "--ckpt_path", "last"]) == 0  # from `other`: runs/t is not there
    assert "there is no checkpoint in runs/t/checkpoints: a new run starts" in capsys.readouterr().out


def test_time_alone_may_end_a_run(tiny_config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["fit", "--config", str(tiny_config), "--trainer.max_steps", "-1", "--trainer.max_time", "00:00:00:02"]
    assert main(words) == 2
    assert "cosine must know how many steps the run has, and it has no end" in capsys.readouterr().err
    assert main([*words, "--model.lr_schedule", "constant"]) == 0
