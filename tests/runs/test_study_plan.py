"""What a study's plan may hold, what it runs, and how wrong ones are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.study_children import GRID
from textkeep.cli.main import main
from textkeep.runs.study.jobs import fit_command, job_of, points, variant_name
from textkeep.runs.study.jobs import test_command as command_of_test
from textkeep.runs.study.progress import duration
from textkeep.runs.study.spec import read_study


def test_an_unknown_arm_is_refused(plan: Any, capsys: pytest.CaptureFixture[str]) -> None:
    path = plan()
    assert main(["study", str(path), "--arms", "fll"]) == 2
    assert "study: --arms: 'fll' (allowed: untouched, full)" in capsys.readouterr().err
    assert main(["study", str(path), "--arms", "untouched", "--dry-run"]) == 0


def test_a_directory_with_something_else_is_refused(
    plan: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s/thesis.tex").write_text("")
    assert main(["study", str(plan())]) == 2
    assert "contains something else" in capsys.readouterr().err


def test_the_commands_hold_all_settings_in_their_order(plan: Any, tmp_path: Path) -> None:
    (tmp_path / "lora.yaml").write_text("model: {}\n")
    arm = {"configs": ["lora.yaml"], "set": {"a": [1, 2], "b": "x"}, **GRID}
    study = read_study(plan(set={"a": 0, "trainer.max_steps": 4}, arms={"lora": arm}, test_configs=["base.yaml"]))
    job = job_of(study, study.arms[0], {"model.lr": 1e-05}, 7)
    assert job.name == "lora,lr=1e-05,seed=7"
    words = fit_command(study, job, resume=False)[2:]
    assert words == [
        "fit", "--config", "base.yaml", "--config", "lora.yaml", "--a=[1, 2]", "--trainer.max_steps=4", "--b=x",
        "--model.lr=1e-05", "--seed_everything=7", "--data.seed=7",
        "--trainer.default_root_dir=s/runs/lora,lr=1e-05/seed=7",
    ]  # fmt: skip
    assert fit_command(study, job, resume=True)[-2:] == ["--ckpt_path", "last"]
    tested = command_of_test(study, job)[2:]
    assert tested[:5] == ["test", "--config", "s/runs/lora,lr=1e-05/seed=7/config.yaml", "--config", "base.yaml"]
    assert tested[-2:] == ["--ckpt_path", "last"]


def test_points_are_all_combinations_and_their_names_fit_for_folders(plan: Any) -> None:
    grid = {"model.lr": [1, 2], "model.tuning.rank": [8], "data.rank": [4]}
    study = read_study(plan(arms={"a": {"grid": grid}}))
    assert len(points(study.arms[0])) == 2
    name = variant_name("a", points(study.arms[0])[1])
    assert name == "a,lr=2,model.tuning.rank=8,data.rank=4"
    assert "/" not in variant_name("a", {"x.y": "b/c d"})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"arms": {}}, "arms: None (allowed: a name and settings for each arm)"),
        ({"arms": {"a b": None}}, "arms: 'a b' (allowed: letters"),
        ({"arms": {"untouched": None}}, "a name that is not untouched"),
        ({"arms": {"a": {"rank": 8}}}, "arms.a: 'rank' (allowed: configs, set, seeds, grid)"),
        ({"arms": {"a": {"grid": {"x": 3}}}}, "arms.a.grid.x: 3 (allowed: a list of values)"),
        ({"arms": {"a": {"configs": ["no.yaml"]}}}, "arms.a.configs: 'no.yaml' (allowed: an existing file"),
        ({"configs": []}, "arms.full.configs: None (allowed: a config file"),
        ({"seeds": [1, 1]}, "seeds: [1, 1] (allowed: a list of different whole numbers)"),
        ({"reference": "lora"}, "reference: 'lora' (allowed: one of the arms full)"),
        ({"sedes": [1]}, "the file: 'sedes' (allowed: directory, configs"),
        (
            {"selection": {"metric": "test/x"}, "arms": {"a": GRID}},
            "selection.metric: 'test/x' (allowed: a metric of val",
        ),
        ({"selection": {"metric": "val/x"}}, "(allowed: only where an arm has a grid)"),
        (
            {"keep_checkpoints": ["lora"]},
            "['lora'] (allowed: true, false, or a list of the arms full)",
        ),
        ({"keep_checkpoints": []}, "keep_checkpoints: [] (allowed: true, false, or a list"),
        ({"test": "yes"}, "test: 'yes' (allowed: true or false)"),
    ],
)
def test_a_wrong_plan_is_refused_in_one_line(
    plan: Any, settings: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["study", str(plan(**settings))]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_a_dry_run_shows_what_would_run_and_leaves_nothing(
    plan: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["study", str(plan(arms={"full": GRID})), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "full,lr=0.3,seed=0" in out
    assert "fit --config base.yaml" in out
    assert not (tmp_path / "s").exists()


def test_durations() -> None:
    assert [duration(s) for s in (45, 89.6, 600, 5400, 11100)] == ["45 s", "90 s", "10 min", "1 h 30 min", "3 h 05 min"]


def test_slurm_without_slurm_is_said_in_one_line(
    plan: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", "/nowhere")
    assert main(["study", str(plan(slurm={"timeout_min": 5}))]) == 2
    assert "study: slurm:" in capsys.readouterr().err
