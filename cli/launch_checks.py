"""Wrong launches by SLURM or torchrun, refused in one line before anything is created.

Otherwise some would wait half an hour for ranks that nobody starts; others would train on one machine of several.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from jsonargparse import Namespace
from lightning.fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment

from ..foundation.errors import USAGE_ERROR, UserError

INTERACTIVE = ("bash", "interactive")
"""Names of SLURM jobs in which Lightning starts the ranks itself: ``salloc`` and ``srun --pty bash`` give them."""
OVERLAY = "configs/trainer/slurm.yaml and configs/trainer/job.sh show both"


def check_launch(trainer: Namespace) -> None:
    """Refuses processes other than those that the trainer expects.

    What all ranks see alike is reported by the first one; the others exit silently with the same code.

    Args:
        trainer: The ``trainer`` part of the config.

    Raises:
        UserError: If the launch does not match, with what was started, what the trainer expects, and what is allowed.
        SystemExit: On the further ranks.
    """
    if _names_an_environment(trainer.plugins):
        return
    if TorchElasticEnvironment.detect():
        wrong, rank = _torchrun(trainer), _number("RANK")
    elif "SLURM_JOB_ID" in os.environ:
        wrong, rank = _slurm(trainer), _number("SLURM_PROCID")
    else:
        wrong, rank = _other(trainer), _number("RANK")
    if wrong and rank:
        raise SystemExit(USAGE_ERROR)
    if wrong:
        raise UserError(wrong)
    if (few := _gpus(trainer)) is not None:
        if _number("LOCAL_RANK") or _number("SLURM_LOCALID"):
            raise SystemExit(USAGE_ERROR)
        raise UserError(few)


def _slurm(trainer: Namespace) -> str | None:
    """Returns what is wrong with a launch inside of a SLURM job."""
    step, tasks, nodes = "SLURM_STEP_ID" in os.environ, _number("SLURM_NTASKS", 1), _number("SLURM_NNODES", 1)
    if SLURMEnvironment.job_name() in INTERACTIVE:
        started = _number("SLURM_STEP_NUM_TASKS", 1)
        if step and started > 1:
            return (
                f"srun starts {started} tasks in a job called {SLURMEnvironment.job_name()!r}, where each would "
                "train separately; allowed: no srun (the ranks are started for you), or salloc --job-name=training"
            )
        return None
    if not step and (tasks > 1 or nodes > 1):
        return (
            f"this SLURM job has {_count(tasks, 'task')} on {_count(nodes, 'node')}, and only one process was started; "
            f"allowed: srun textkeep ... ({OVERLAY})"
        )
    expected = _devices(trainer) * trainer.num_nodes
    if "SLURM_NTASKS" in os.environ and tasks != expected:
        return (
            f"SLURM starts {_count(tasks, 'task')} on {_count(nodes, 'node')}, but the trainer expects {expected}; "
            f"allowed: trainer.num_nodes as --nodes and trainer.devices as --ntasks-per-node ({OVERLAY})"
        )
    a_node = _number("SLURM_NTASKS_PER_NODE", 0)
    if tasks > 1 and not a_node:
        return (
            f"--ntasks={tasks} leaves open how many tasks a node gets; allowed: --nodes={trainer.num_nodes} "
            f"--ntasks-per-node={_devices(trainer)}"
        )
    if a_node and (a_node, nodes) != (_devices(trainer), trainer.num_nodes):
        return (
            f"SLURM starts {_count(a_node, 'task')} per node on {_count(nodes, 'node')}; trainer.devices is "
            f"{_devices(trainer)} and trainer.num_nodes {trainer.num_nodes}; allowed: the same numbers ({OVERLAY})"
        )
    return None


def _torchrun(trainer: Namespace) -> str | None:
    """Returns what is wrong with a launch by torchrun."""
    world, a_node = _number("WORLD_SIZE", 1), _number("LOCAL_WORLD_SIZE", 1)
    if (a_node, world) == (_devices(trainer), _devices(trainer) * trainer.num_nodes):
        return None
    return (
        f"torchrun starts {_count(a_node, 'process', 'processes')} per node, {world} in all; trainer.devices is "
        f"{_devices(trainer)} and trainer.num_nodes {trainer.num_nodes}; allowed: trainer.devices as --nproc-per-node "
        "and trainer.num_nodes as --nnodes"
    )


def _other(trainer: Namespace) -> str | None:
    """Returns what is wrong with a launch by something that sets the variables of torch.distributed alone."""
    world = _number("WORLD_SIZE", 1)
    if world in (1, _devices(trainer) * trainer.num_nodes):
        return None
    return (
        f"WORLD_SIZE={world} is set, but the trainer expects {_devices(trainer) * trainer.num_nodes}: each process "
        "would train separately; allowed: torchrun ... -m textkeep.cli.main fit, with as many processes"
    )


def _gpus(trainer: Namespace) -> str | None:
    """Describes the problem if this process sees fewer GPUs than the trainer wants."""
    if trainer.accelerator not in ("gpu", "cuda"):
        return None
    seen, wanted = _visible_gpus(), _devices(trainer)
    if seen is None or seen >= wanted:
        return None
    return (
        f"{os.uname().nodename}: a process sees {_count(seen, 'GPU')} "
        f"(CUDA_VISIBLE_DEVICES={os.environ['CUDA_VISIBLE_DEVICES']}), and trainer.devices is {wanted}; allowed: under "
        f"SLURM --gpus-per-node={wanted} (with --gpus-per-task a task sees only its own), or fewer devices"
    )


def _visible_gpus() -> int | None:
    """Returns the number of GPUs visible to this process; None if they were not restricted."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return None if visible is None else len([part for part in visible.split(",") if part.strip() not in ("", "-1")])


def _devices(trainer: Namespace) -> int:
    """Returns the number of processes per node that the trainer wants."""
    wanted = trainer.devices
    if isinstance(wanted, list):
        return len(wanted)
    text = str(wanted)
    if "," in text:
        return len([part for part in text.split(",") if part.strip()])
    if text not in ("auto", "-1"):
        return int(text)
    gpus = trainer.accelerator in ("gpu", "cuda") or (trainer.accelerator == "auto" and torch.cuda.is_available())
    seen = _visible_gpus()
    return max(torch.cuda.device_count() if seen is None else seen, 1) if gpus else 1


def _names_an_environment(plugins: Any) -> bool:
    """Returns whether the config itself names the cluster environment."""
    named = plugins if isinstance(plugins, list) else [plugins]
    return any("Environment" in str(getattr(plugin, "class_path", "")) for plugin in named)


def _number(variable: str, default: int = 0) -> int:
    return int(os.environ.get(variable, default))


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"
