"""Which run a job goes on with when SLURM or torchrun starts it again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from textkeep.runs.belonging import directory_of_job, finished_step
from textkeep.runs.directory import RunDirectory
from textkeep.runs.launch import Launch


def config(seed: int = 0, directory: Path | str = "runs/x", steps: int = 30, **more: object) -> str:
    trainer = {"default_root_dir": str(directory), "max_steps": steps}
    return yaml.safe_dump({"seed_everything": seed, "trainer": trainer, "model": {"llm": "x"}, **more})


def slurm(monkeypatch: pytest.MonkeyPatch, job: str, restarts: int = 0, **more: str) -> None:
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    named = {"SLURM_JOB_ID": job, **({"SLURM_RESTART_COUNT": str(restarts)} if restarts else {})}
    for name, value in {**named, **{f"SLURM_{key}": value for key, value in more.items()}}.items():
        monkeypatch.setenv(name, value)


def begin(wanted: Path, seed: int = 0, saved: int | None = None) -> RunDirectory:
    """Begins a run as a fit does, perhaps so far that it has a checkpoint, and lets its lock go."""
    run = RunDirectory.claim(wanted, lambda path: config(seed, path))
    if saved is not None:
        save(run.path, saved)
    assert run.lock is not None
    run.lock.release()
    return run


def save(run: Path, age: int) -> None:
    path = run / "checkpoints" / "step=000010.ckpt"
    path.parent.mkdir(exist_ok=True)
    path.write_text("state")
    os.utime(path, (1e9 + age, 1e9 + age))


def test_only_a_job_that_is_started_again_finds_its_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = tmp_path / "a"
    begin(wanted)
    slurm(monkeypatch, "77")
    mine = begin(wanted).path
    assert mine == tmp_path / "a-2"
    assert directory_of_job(wanted, config()) is None  # its first start
    slurm(monkeypatch, "77", 1)
    assert directory_of_job(wanted, config()) == mine
    slurm(monkeypatch, "7", 1)
    assert directory_of_job(wanted, config()) is None
    slurm(monkeypatch, "78", 1)
    assert directory_of_job(wanted, config()) is None


def test_without_a_checkpoint_the_first_directory_is_found_and_with_some_the_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm(monkeypatch, "77")
    runs = [begin(tmp_path / "a").path for _ in range(3)]
    slurm(monkeypatch, "77", 2)
    assert directory_of_job(tmp_path / "a", config()) == runs[0]
    save(runs[1], 20)
    save(runs[2], 10)
    assert directory_of_job(tmp_path / "a", config()) == runs[1]


def test_several_fits_of_a_job_are_told_apart_by_their_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = tmp_path / "a"
    slurm(monkeypatch, "77")  # a script without srun: no steps
    first = begin(wanted, seed=0, saved=20)
    first.finish(30)
    slurm(monkeypatch, "77", 1)
    assert directory_of_job(wanted, config(0)) == first.path
    assert directory_of_job(wanted, config(1)) is None  # it had not begun
    slurm(monkeypatch, "77")
    second = begin(wanted, seed=1)
    slurm(monkeypatch, "77", 1)
    assert directory_of_job(wanted, config(0)) == first.path
    assert directory_of_job(wanted, config(1)) == second.path


def test_fits_of_one_config_are_told_apart_by_their_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {}
    for restarts in (0, 1):
        for step in ("0", "1"):
            slurm(monkeypatch, "77", restarts, STEP_ID=step)
            found[step] = directory_of_job(tmp_path / "a", config()) or begin(tmp_path / "a", saved=int(step)).path
    assert found == {"0": tmp_path / "a", "1": tmp_path / "a-2"}


def test_a_changed_config_goes_on_unless_it_trains_something_else_or_the_run_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = tmp_path / "a"
    slurm(monkeypatch, "77", STEP_ID="0")
    run = begin(wanted, saved=10)
    slurm(monkeypatch, "77", 1, STEP_ID="0")
    assert directory_of_job(wanted, config(steps=60)) == wanted
    assert directory_of_job(wanted, config(seed=1)) is None
    assert directory_of_job(wanted, config(data={"train": "other"})) is None
    slurm(monkeypatch, "77", 1, STEP_ID="1")
    assert directory_of_job(wanted, config(steps=60)) is None
    slurm(monkeypatch, "77", 1, STEP_ID="0")
    run.finish(10)
    assert directory_of_job(wanted, config(steps=60)) is None  # the second fit of the script, which had not begun
    assert directory_of_job(wanted, config()) == wanted


def test_tasks_of_an_array_keep_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = {"0": "34", "1": "33"}  # the last task has the number of the array
    runs = {}
    for task, job in ids.items():
        slurm(monkeypatch, job, ARRAY_JOB_ID="33", ARRAY_TASK_ID=task)
        runs[task] = begin(tmp_path / "a", saved=int(task)).path
    assert runs == {"0": tmp_path / "a", "1": tmp_path / "a-2"}
    for task in ("1", "0"):
        slurm(monkeypatch, "99", 1, ARRAY_JOB_ID="33", ARRAY_TASK_ID=task)
        assert directory_of_job(tmp_path / "a", config()) == runs[task]
    slurm(monkeypatch, "33", 1)
    assert directory_of_job(tmp_path / "a", config()) is None


def test_a_mark_of_before_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = begin(tmp_path / "a").path
    (run / "config.yaml").write_text("# SLURM job 77\n" + config())
    slurm(monkeypatch, "77", 1, STEP_ID="0")
    assert directory_of_job(tmp_path / "a", config()) == run


@pytest.mark.parametrize("name", ["none", "my run, again"])
def test_torchrun_is_known_by_its_agent_and_its_name(name: str, tmp_path: Path) -> None:
    """A real agent: the parent of two processes; another agent of the same name is another run."""
    elastic = {"TORCHELASTIC_RUN_ID": name, "TORCHELASTIC_RESTART_COUNT": "0"}
    launch, sibling = (_launch_in_a_child(elastic) for _ in range(2))
    assert launch == sibling
    assert launch.elastic
    assert not launch.again
    run = RunDirectory.claim(tmp_path / "a", lambda path: config(directory=path)).path
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(launch.mark + text)
    assert directory_of_job(tmp_path / "a", config(), launch) == run  # more nodes came: nothing is counted
    assert directory_of_job(tmp_path / "a", config(seed=1), launch) is None
    program = f"import os; os.environ.update({elastic!r}); {_SHOW}"
    other = eval(subprocess.run([sys.executable, "-c", _IN_A_CHILD, program], capture_output=True, text=True).stdout)
    assert other.mark != launch.mark
    assert directory_of_job(tmp_path / "a", config(), other) is None
    again = Launch(other.job, other.part, (0, 1), elastic=True)  # rank 0 came up on another machine
    assert directory_of_job(tmp_path / "a", config(), again) == (None if name == "none" else run)


_SHOW = "from textkeep.runs.launch import Launch; print(Launch.of())"
_IN_A_CHILD = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]], check=True)"


def _launch_in_a_child(environment: dict[str, str]) -> Launch:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    done = subprocess.run(
        [sys.executable, "-c", _SHOW], env={**kept, **environment}, capture_output=True, text=True, check=True
    )
    return eval(done.stdout)  # type: ignore[no-any-return]


def test_torchrun_inside_of_slurm_is_the_job_of_slurm() -> None:
    environment = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "TORCHELASTIC_RUN_ID": "none"}
    first = Launch.of({**environment, "TORCHELASTIC_RESTART_COUNT": "2"})
    second = Launch.of({**environment, "SLURM_RESTART_COUNT": "1", "TORCHELASTIC_RESTART_COUNT": "0"})
    assert first.job == second.job == "SLURM job 7"
    assert first.attempt < second.attempt
    assert Launch.of({}).mark == ""
    assert not Launch.of({}).began("")


def test_a_run_whose_last_checkpoints_were_removed_is_not_finished(tmp_path: Path) -> None:
    run = begin(tmp_path / "a", saved=10)
    run.finish(10)
    assert finished_step(run.path) == 10
    run.finish(30)
    assert finished_step(run.path) is None
    for file in (run.path / "checkpoints").iterdir():
        file.unlink()
    assert finished_step(run.path) == 30  # nothing is left to go on from
