"""Memory and disks that are full, in real commands: one line, exit code 1."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.support.processes import child_environment, command
from textkeep.cli import main as program
from textkeep.cli.machine_faults import machine_fault


def raised(error: BaseException, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What the command line says of an error."""

    def fail(_: object) -> int:
        raise error

    monkeypatch.setattr(program, "run", fail)
    assert program.main(["fit"]) == 1
    return capsys.readouterr().err


def test_a_real_allocation_that_fails_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RuntimeError) as refused:
        torch.empty(2**60, dtype=torch.uint8)
    said = raised(refused.value, monkeypatch, capsys)
    assert said.startswith(
        "textkeep: error: memory is full (1,152,921,504,606,846,976 bytes more were asked for); allow"
    )
    assert said.count("\n") == 1


@pytest.mark.gpu
def test_a_gpu_that_is_full_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(torch.OutOfMemoryError) as refused:
        torch.empty(2**50, dtype=torch.uint8, device="cuda")
    said = raised(refused.value, monkeypatch, capsys)
    assert said.startswith("textkeep: error: the GPU's memory is full (1048576.00 GiB more were asked for); allowed: ")


def test_a_full_disk_is_named_with_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(OSError, match="No space") as refused, open("/dev/full", "w") as file:
        file.write("x" * 10**6)
    refused.value.filename = str(tmp_path / "metrics.csv")
    assert raised(refused.value, monkeypatch, capsys) == (
        f"textkeep: error: {tmp_path}/metrics.csv: No space left on device; allowed: room on this disk, and then the "
        "same command again\n"
    )


@pytest.mark.parametrize(
    "error", [FileNotFoundError(errno.ENOENT, "No such file", "x"), ValueError("x"), KeyError("x")]
)
def test_what_is_no_fault_of_the_machine_is_left_alone(error: Exception) -> None:
    assert machine_fault(error) is None


@pytest.mark.slow
def test_memory_that_ends_in_training_is_one_line(tmp_path: Path, tiny_config: Path) -> None:
    settings: dict[str, Any] = yaml.safe_load(tiny_config.read_text())
    settings["trainer"] |= {"logger": False, "callbacks": [{"class_path": "hungry.Hungry"}]}
    tiny_config.write_text(yaml.safe_dump(settings))
    (tmp_path / "hungry.py").write_text(
        "import torch\nfrom lightning.pytorch import Callback\n\n\nclass Hungry(Callback):\n"
        "    def on_before_backward(self, trainer, *args):\n        if trainer.global_step == 1:\n"
        "            torch.empty(2**36, dtype=torch.uint8)\n"
    )

    def little_memory() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (2**36, 2**36))

    done = subprocess.run(
        command("fit", "--config", tiny_config),
        cwd=tmp_path,
        env=child_environment(HOME=str(tmp_path), PYTHONPATH=os.fspath(tmp_path)),
        capture_output=True,
        text=True,
        timeout=240,
        preexec_fn=little_memory,
    )
    told = [line for line in done.stderr.splitlines() if line.startswith("textkeep: error: memory is full (")]
    assert len(told) == 1, done.stderr
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "DefaultCPUAllocator" in (tmp_path / "runs/t/error.txt").read_text()
