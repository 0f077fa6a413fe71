"""Launches that do not fit the config are refused in one line, before anything is made."""

from __future__ import annotations

import os
import re
from typing import Any

import pytest
from jsonargparse import Namespace

from textkeep.cli.launch_checks import check_launch
from textkeep.foundation.errors import UserError

VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RUN_ID", "CUDA_VISIBLE_DEVICES")
SLURM = {"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "job.sh", "SLURM_NNODES": "1"}
STEP = {**SLURM, "SLURM_STEP_ID": "0", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "RANK": "0", "LOCAL_RANK": "0"}
TWO = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
FOUR = {"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "4"}
FOUR_ON_TWO = {"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"}
GPUS = {"devices": 2, "accelerator": "gpu"}


@pytest.fixture
def launch(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Checks a trainer in an environment that has these variables and no others of a launcher."""

    def check(environment: dict[str, str], **trainer: Any) -> None:
        for name in list(os.environ):
            if name.startswith("SLURM_") or name in VARIABLES:
                monkeypatch.delenv(name)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        whole = {"accelerator": "cpu", "devices": 1, "num_nodes": 1, "plugins": None, **trainer}
        check_launch(Namespace(**whole))

    return check


def tasks(number: int, a_node: int | None, nodes: int = 1) -> dict[str, str]:
    per_node = {} if a_node is None else {"SLURM_NTASKS_PER_NODE": str(a_node)}
    return {"SLURM_NTASKS": str(number), "SLURM_NNODES": str(nodes), **per_node}


@pytest.mark.parametrize(
    ("environment", "trainer"),
    [
        ({}, {"devices": 2}),
        ({}, {"devices": "auto", "num_nodes": 2}),  # started by hand, with NODE_RANK
        (SLURM, {"devices": 2}),  # a batch job without --ntasks: the ranks are started by Lightning
        ({**SLURM, **tasks(1, 1)}, {}),
        ({**STEP, **tasks(1, None)}, {}),
        ({**STEP, **tasks(2, 2)}, {"devices": "2"}),
        ({**STEP, **tasks(2, 1, 2)}, {"devices": "auto", "num_nodes": 2}),
        ({**STEP, **tasks(4, 2, 2)}, {"devices": [0, 1], "num_nodes": 2}),
        ({**SLURM, **tasks(2, 2), "SLURM_JOB_NAME": "interactive"}, {"devices": 2}),
        ({**SLURM, **tasks(2, 2), "SLURM_JOB_NAME": "interactive"}, {}),
        ({**STEP, **tasks(1, 1), "SLURM_JOB_NAME": "bash"}, {"devices": 2}),
        ({**TORCHRUN, **TWO}, {"devices": 2}),
        # srun starts one torchrun per node
        ({**STEP, **tasks(2, 1, 2), **TORCHRUN, **FOUR_ON_TWO}, {"devices": 2, "num_nodes": 2}),
        ({"WORLD_SIZE": "2", "LOCAL_RANK": "1"}, {"devices": 2}),  # a child of Lightning's
        ({**STEP, **tasks(4, 4)}, {"plugins": Namespace(class_path="lightning.LightningEnvironment")}),
        ({**STEP, **tasks(2, 2), "CUDA_VISIBLE_DEVICES": "0,1"}, GPUS),
        ({**STEP, **tasks(2, 2), "CUDA_VISIBLE_DEVICES": "0,1"}, {"devices": -1, "accelerator": "gpu"}),
        ({"CUDA_VISIBLE_DEVICES": ""}, {"devices": 2}),
    ],
)  # fmt: skip
def test_a_launch_that_fits_is_let_through(launch: Any, environment: dict[str, str], trainer: dict[str, Any]) -> None:
    launch(environment, **trainer)


@pytest.mark.parametrize(
    ("environment", "trainer", "words"),
    [
        ({**STEP, **tasks(2, 1, 2)}, {}, "SLURM starts 2 tasks on 2 nodes, but the trainer expects 1"),
        ({**STEP, **tasks(1, 1)}, {"devices": 2}, "SLURM starts 1 task on 1 node, but the trainer expects 2"),
        ({**STEP, **tasks(2, 2, 1)}, {"num_nodes": 2}, "2 tasks per node on 1 node; trainer.devices is 1 and tra"),
        ({**STEP, **tasks(2, None)}, {"devices": 2}, "--ntasks=2 leaves open how many tasks a node gets"),
        ({**SLURM, **tasks(2, 2)}, {"devices": 2}, "2 tasks on 1 node, and only one process was started; allowed: sru"),
        ({**SLURM, "SLURM_NNODES": "2"}, {}, "1 task on 2 nodes, and only one process was started"),
        ({**STEP, "SLURM_JOB_NAME": "bash", "SLURM_STEP_NUM_TASKS": "2"}, {"devices": 2}, "each would train separ"),
        ({**TORCHRUN, **TWO}, {}, "torchrun starts 2 processes per node, 2 in all"),
        ({**TORCHRUN, **FOUR}, {"devices": 2, "num_nodes": 2}, "4 processes per node"),
        ({"WORLD_SIZE": "2", "RANK": "0"}, {}, "WORLD_SIZE=2 is set, but the trainer expects 1"),
        ({**STEP, **tasks(2, 2), "CUDA_VISIBLE_DEVICES": "0"}, GPUS, "sees 1 GPU "),
        ({**STEP, **tasks(2, 2), "CUDA_VISIBLE_DEVICES": "0"}, {"devices": "-1", "accelerator": "gpu"}, "expects 1"),
        ({"CUDA_VISIBLE_DEVICES": ""}, {"devices": 1, "accelerator": "cuda"}, "sees 0 GPUs (CUDA_VISIBLE_DEVICES=)"),
    ],
)  # fmt: skip
def test_one_that_does_not_is_refused_by_the_first_rank(
    launch: Any, environment: dict[str, str], trainer: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=re.escape(words)) as error:
        launch(environment, **trainer)
    assert "allowed: " in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("environment", "trainer"),
    [
        ({**STEP, **tasks(2, 1, 2), "SLURM_PROCID": "1"}, {}),
        ({**TORCHRUN, **TWO, "RANK": "1"}, {}),
        ({"WORLD_SIZE": "2", "RANK": "1"}, {}),
        ({**STEP, **tasks(2, 2), "SLURM_LOCALID": "1", "CUDA_VISIBLE_DEVICES": "0"}, GPUS),
    ],
)  # fmt: skip
def test_the_others_are_silent(launch: Any, environment: dict[str, str], trainer: dict[str, Any]) -> None:
    with pytest.raises(SystemExit) as end:
        launch(environment, **trainer)
    assert end.value.code == 2
