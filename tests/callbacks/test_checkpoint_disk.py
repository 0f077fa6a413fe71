"""A disk that takes no more: one line, the good checkpoint stays, and the run goes on when there is room again."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest
import yaml

from tests.support.processes import command
from tests.support.small_disk import can_mount, on_disk

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not can_mount(), reason="a small file system can be mounted by root only"),
]

LIST = "ls -A disk/run/checkpoints disk/tmp; ls -A disk/run | grep tmp || true"


def fit(config: Path, *more: str) -> str:
    return shlex.join(command("fit", "--config", config, *more))


@pytest.fixture
def config(tiny_config: Path) -> Path:
    settings = yaml.safe_load(tiny_config.read_text())
    settings["trainer"] |= {
        "default_root_dir": "disk/run",
        "max_steps": 4,
        "logger": False,
        "limit_val_batches": 0,
        "callbacks": [{"class_path": "RunCheckpoint", "init_args": {"every_n_train_steps": 1}}],
    }
    tiny_config.write_text(yaml.safe_dump(settings))
    return tiny_config


def test_a_full_disk_costs_no_checkpoint(config: Path, tmp_path: Path) -> None:
    """The first checkpoint fits, a second one beside it does not; then there is room."""
    script = f"""
    mkdir disk/tmp
    {fit(config)} || echo "exit $?"
    {LIST}; readlink disk/run/checkpoints/last.ckpt
    mount -o remount,size=100m disk
    {fit(config, "--ckpt_path", "last")}
    {LIST}; readlink disk/run/checkpoints/last.ckpt
    """
    done = on_disk(tmp_path / "disk", "700k", script, TMPDIR=str(tmp_path / "disk/tmp"))
    told = [line for line in done.stderr.splitlines() if line.startswith("textkeep: error:")]
    assert len(told) == 1, done.stderr
    wanted = (
        r"the checkpoint \S+/disk/run/checkpoints/step=000002\.ckpt cannot be written: No space left on device "
        r"\([\d,]+ bytes needed, [\d,]+ free\); \S+/step=000001\.ckpt is kept, --ckpt_path last continues from it$"
    )
    assert re.search(wanted, told[0]), told
    assert "exit 1" in done.stdout
    # The file, where last.ckpt leads, and where the second run begins.
    assert done.stdout.count("step=000001.ckpt\n") == 3, done.stdout
    assert done.stdout.count("step=000004.ckpt\n") == 2, done.stdout
    assert done.returncode == 0
    assert "000002.ckpt\n" not in done.stdout
    assert ".tmp" not in done.stdout


def test_all_ranks_end_alike_on_a_full_disk(config: Path, tmp_path: Path) -> None:
    ranks = ("--trainer.devices", "2", "--trainer.strategy", "ddp")
    script = f"""
    timeout 120 {fit(config, *ranks)} || echo "exit $?"
    ls -A disk/run/checkpoints; cat disk/run/error.txt | tail -n 1
    """
    done = on_disk(tmp_path / "disk", "700k", script)
    assert "exit 1\nlast.ckpt\nstep=000001.ckpt\n" in done.stdout, done.stderr
    assert "RunError: the checkpoint" in done.stdout
    assert done.stderr.count("textkeep: error: the checkpoint") == 1  # of one rank
    assert "Traceback" not in done.stderr


def test_a_full_folder_for_temporary_files_does_not_matter(config: Path, tmp_path: Path) -> None:
    settings = yaml.safe_load(config.read_text())
    settings["trainer"]["default_root_dir"] = str(tmp_path / "room")
    config.write_text(yaml.safe_dump(settings))
    script = f"dd if=/dev/zero of=disk/fill bs=1M 2>/dev/null || true\n{fit(config)}\n"
    done = on_disk(tmp_path / "disk", "1m", script, TMPDIR=str(tmp_path / "disk"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "room/checkpoints/last.ckpt").resolve().name == "step=000004.ckpt"


def test_a_disk_that_becomes_read_only_is_named(config: Path, tmp_path: Path) -> None:
    (tmp_path / "becomes.py").write_text(
        "import subprocess\nfrom lightning.pytorch import Callback\n\n\nclass ReadOnly(Callback):\n"
        "    def on_train_batch_start(self, trainer, *args):\n        if trainer.global_step == 2:\n"
        "            # The lock of the run is open for writing, so that the mount itself must stay as it is.\n"
        "            subprocess.run(['mount', '--bind', 'disk/run', 'disk/run'], check=True)\n"
        "            subprocess.run(['mount', '-o', 'remount,bind,ro', 'disk/run'], check=True)\n"
    )
    settings = yaml.safe_load(config.read_text())
    settings["trainer"]["callbacks"].append({"class_path": "becomes.ReadOnly"})
    config.write_text(yaml.safe_dump(settings))
    script = f"""
    {fit(config)} || echo "exit $?"
    {sys.executable} -c "import sys, torch; print(torch.load(sys.argv[1])['global_step'], 'held')" \
        disk/run/checkpoints/last.ckpt
    """
    done = on_disk(tmp_path / "disk", "100m", script, PYTHONPATH=str(tmp_path))
    told = [line for line in done.stderr.splitlines() if line.startswith("textkeep: error:")]
    assert len(told) == 1, done.stderr
    assert re.search(
        r"step=000003\.ckpt cannot be written: Read-only file system .*/step=000002\.ckpt is kept", told[0]
    )
    assert "exit 1\n2 held" in done.stdout


WRITES = """
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from textkeep.foundation.files import replacing, replacing_folder, write_json

def snapshot():
    with replacing_folder(Path("disk/snapshot")) as folder:
        save_file({"a": torch.ones(1_000_000)}, folder / "stats.safetensors")

def cache():
    with replacing(Path("disk/entry")) as temporary:
        save_file({"a": torch.ones(1_000_000)}, temporary)

def table():
    write_json(["x" * 100] * 100_000, Path("disk/table"))

for write in (snapshot, cache, table):
    try:
        write()
    except OSError as error:
        print(error)
print([path.name for path in Path("disk").iterdir()])
"""


def test_whatever_is_written_names_its_place_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "writes.py").write_text(WRITES)
    done = on_disk(tmp_path / "disk", "1m", f"{sys.executable} writes.py")
    full = "[Errno 28] No space left on device: 'disk/{}'\n"
    assert done.stdout == "".join(full.format(name) for name in ("snapshot", "entry", "table")) + "[]\n", done.stderr
