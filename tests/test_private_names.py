"""Every private name of another library that the package uses stands here, with the reason.

An underscore says that a name may go with any release: each one is a place to look at when a library moves.
"""

from __future__ import annotations

import ast
from typing import NamedTuple

import pytest

from tests.support import private_names


class Use(NamedTuple):
    """A file that uses a private name.

    Attributes:
        file: Below the root.
        name: The private name.
        owner: The library's module or class that gives it.
        why: What there is no public way for.
    """

    file: str
    name: str
    owner: str
    why: str


LOADER = "torch.utils.data.dataloader"
LOADER_ITERATOR = f"{LOADER}._MultiProcessingDataLoaderIter"
CHECKPOINT = "lightning.pytorch.callbacks.ModelCheckpoint"
WANDB = "lightning.pytorch.loggers.WandbLogger"

SAVES_NOW = "saves outside of the schedule and lets Lightning's own books know"
ENDS_WORKERS = "ends workers before the garbage collector closes their queues, which takes them five seconds"
LAUNCHER = "lightning.fabric.strategies.launchers.subprocess_script"
PROCESSES = "lightning.pytorch.strategies.launchers.subprocess_script"
NOT_KILLED = "Lightning kills the first rank within five seconds of another one's end, before it has said anything"
NAMES_WORKERS = "which worker died, and of what, is told from its exit code alone"
CONNECTOR = "lightning.pytorch.trainer.connectors.signal_connector"
ONLY_NOTED = "signals are noted; Lightning's handlers save and speak to other ranks in the middle of a step"
FIT_LOOP = "lightning.pytorch.loops.fit_loop"
EPOCH_LOOP = "lightning.pytorch.loops.training_epoch_loop"
GOES_ON = "a run goes on behind the hook in which its checkpoint was written; Lightning has no setting for it"
BY_TIME = "the time since the last validation goes on counting after a resume"
NO_DATA = "tensors without data, and what sees each operator: torch has no public name for either"
OPERATOR = "an operator as it reaches a dispatch mode; its public name is taken apart before"
OFFLINE = "a run whose connection is lost goes on offline, under the same id"

USES = [
    Use(
        "callbacks/evaluations/score_memory.py",
        "_attn_implementation",
        "transformers.PretrainedConfig",
        "which attention computes: to_dict() leaves it out",
    ),
    Use("callbacks/loggers/wandb_logger.py", "_experiment", WANDB, OFFLINE),
    Use("callbacks/loggers/wandb_logger.py", "_id", WANDB, OFFLINE),
    Use("callbacks/loggers/wandb_logger.py", "_wandb_init", WANDB, "we open the run, with Lightning's settings"),
    Use("callbacks/saving/checkpoint.py", "_last_checkpoint_saved", CHECKPOINT, "the file that an exception left"),
    Use("callbacks/saving/checkpoint.py", "_last_global_step_saved", CHECKPOINT, SAVES_NOW),
    Use("callbacks/saving/checkpoint.py", "_link_checkpoint", CHECKPOINT, "Lightning removes the link first"),
    Use("callbacks/saving/checkpoint.py", "_monitor_candidates", CHECKPOINT, SAVES_NOW),
    Use("callbacks/saving/checkpoint.py", "_remove_checkpoint", CHECKPOINT, "Lightning keeps what was resumed from"),
    Use("callbacks/saving/checkpoint.py", "_save_checkpoint", CHECKPOINT, SAVES_NOW),
    Use("callbacks/saving/checkpoint.py", "_save_last_checkpoint", CHECKPOINT, SAVES_NOW),
    Use("callbacks/saving/checkpoint.py", "_save_topk_checkpoint", CHECKPOINT, SAVES_NOW),
    Use("callbacks/saving/checkpoint.py", "_should_save_on_exception", CHECKPOINT, SAVES_NOW),
    Use("callbacks/saving/checkpoint.py", "_should_skip_saving_checkpoint", CHECKPOINT, SAVES_NOW),
    Use("foundation/signals.py", "_exit", "os", "ends a process where libraries swallow exceptions"),
    Use("callbacks/stopping/stop_signals.py", "_exit", "os", "its main thread waits outside of Python"),
    Use("callbacks/stopping/signal_connector.py", "_SignalConnector", CONNECTOR, ONLY_NOTED),
    Use("callbacks/stopping/signal_connector.py", "_signal_connector", "lightning.pytorch.Trainer", ONLY_NOTED),
    Use(
        "callbacks/stopping/signal_connector.py",
        "_accelerator_connector",
        "lightning.pytorch.Trainer",
        "whether SLURM puts the job into the queue again; one process has no strategy with a cluster_environment",
    ),
    Use("callbacks/saving/exact_loops.py", "_DataFetcher", "lightning.pytorch.loops.fetchers", GOES_ON),
    Use("callbacks/saving/exact_loops.py", "_FitLoop", FIT_LOOP, GOES_ON),
    Use("callbacks/saving/exact_loops.py", "_TrainingEpochLoop", EPOCH_LOOP, GOES_ON),
    Use("callbacks/saving/exact_loops.py", "_batches_that_stepped", f"{EPOCH_LOOP}._TrainingEpochLoop", GOES_ON),
    Use("callbacks/saving/exact_loops.py", "_combined_loader", f"{FIT_LOOP}._FitLoop", GOES_ON),
    Use("callbacks/saving/exact_loops.py", "_data_fetcher", f"{FIT_LOOP}._FitLoop", GOES_ON),
    Use("callbacks/saving/exact_loops.py", "_last_val_time", f"{FIT_LOOP}._FitLoop", BY_TIME),
    Use("callbacks/saving/exact_loops.py", "_logger_connector", "lightning.pytorch.Trainer", GOES_ON),
    Use("callbacks/saving/exact_loops.py", "_restarting", "lightning.pytorch.loops.loop._Loop", GOES_ON),
    Use("callbacks/saving/exact_loops.py", "_should_check_val_fx", f"{EPOCH_LOOP}._TrainingEpochLoop", GOES_ON),
    Use("callbacks/saving/exact_loops.py", "_skip_next_val", f"{EPOCH_LOOP}._TrainingEpochLoop", GOES_ON),
    Use("callbacks/saving/exact_loops.py", "_val_check_time_interval", f"{FIT_LOOP}._FitLoop", BY_TIME),
    Use(
        "callbacks/progress/run_progress_bar.py",
        "_get_train_description",
        "lightning.pytorch.callbacks.RichProgressBar",
        "where steps and not epochs are limited, Lightning would write Epoch 0/-2",
    ),
    Use(
        "cli/ending.py",
        "_get_default_store",
        "torch.distributed.distributed_c10d",
        "ranks wait for rank zero without a collective, which one that has died would hang",
    ),
    Use("cli/lost_ranks.py", "_ChildProcessObserver", LAUNCHER, NOT_KILLED),
    Use("cli/lost_ranks.py", "_child_processes", f"{LAUNCHER}._ChildProcessObserver", NOT_KILLED),
    Use(
        "cli/lost_ranks.py",
        "_SubprocessScriptLauncher",
        PROCESSES,
        "which ranks this process started, and how they ended",
    ),
    Use(
        "cli/run_callback.py",
        "_checkpoint_connector",
        "lightning.pytorch.Trainer",
        "rank zero chooses the checkpoint for all, when the ranks can speak to each other",
    ),
    Use(
        "cli/run_callback.py",
        "_default_root_dir",
        "lightning.pytorch.trainer.connectors.callback_connector._CallbackConnector",
        "rank zero chooses the directory for all; the Trainer has no setter",
    ),
    Use("datamodules/batches/batch_loader.py", "_iterator", f"{LOADER}.DataLoader", ENDS_WORKERS),
    Use("datamodules/batches/worker_watch.py", "_MultiProcessingDataLoaderIter", LOADER, ENDS_WORKERS),
    Use("datamodules/batches/worker_watch.py", "_iterator", f"{LOADER}.DataLoader", NAMES_WORKERS),
    Use("datamodules/batches/worker_watch.py", "_shutdown_workers", LOADER_ITERATOR, ENDS_WORKERS),
    Use("datamodules/batches/worker_watch.py", "_workers", LOADER_ITERATOR, NAMES_WORKERS),
    Use(
        "datamodules/sources/tables.py",
        "_indices",
        "datasets.Dataset",
        "a null cell is told by its column, where rows are not picked; formatting each row is ten times slower",
    ),
    Use(
        "importance/kernels.py",
        "_parameters",
        "torch.nn.Module",
        "a module runs on another tensor without its hooks, which torch.func.functional_call would run",
    ),
    Use(
        "importance/packing.py",
        "_attn_implementation",
        "transformers.PretrainedConfig",
        "which attention computes: only two of them take a mask of our own",
    ),
    Use("importance/rehearsal.py", "_version", "torch.Tensor", "whether a tensor was overwritten after a hook saw it"),
    Use(
        "importance/state.py",
        "_gradient_checkpointing_func",
        "transformers.PreTrainedModel",
        "which layers recompute their activations",
    ),
    Use("importance/state.py", "_orig_mod", "torch._dynamo.OptimizedModule", "the module under torch.compile"),
    Use(
        "lightning_modules/optimization.py",
        "_last_lr",
        "torch.optim.lr_scheduler.LRScheduler",
        "rates that change between two steps of a schedule are what get_last_lr gives",
    ),
    Use(
        "lightning_modules/optimization.py",
        "_step_supports_amp_scaling",
        "torch.optim.AdamW",
        "gradients lose their scale before they are edited, also under fused optimizers",
    ),
    Use(
        "lightning_modules/precision.py",
        "_non_persistent_buffers_set",
        "torch.nn.Module",
        "which buffers are constants of the code; a state dict of the whole model would be the other way",
    ),
    Use(
        "lightning_modules/saving/step_boundary.py",
        "_batches_that_stepped",
        "lightning.pytorch.loops.training_epoch_loop._TrainingEpochLoop",
        "a checkpoint of a half-done step is set back to the last whole one",
    ),
    Use(
        "lightning_modules/saving/trained_parts.py",
        "_apply",
        "torch.nn.Module",
        "tensors with a type of their own keep it, whoever converts the module",
    ),
    Use(
        "lightning_modules/saving/trained_parts.py",
        "_load_state",
        "lightning.pytorch.core.saving",
        "load_from_checkpoint takes files only, and a sharded checkpoint is a folder",
    ),
    Use(
        "lightning_modules/sharding/fsdp2.py",
        "_data_parallel_size",
        "lightning.pytorch.strategies.ModelParallelStrategy",
        "its size by default is the number of nodes, and that of the ranks is known when they have met",
    ),
    Use(
        "lightning_modules/sharding/fsdp2.py",
        "_forward_redirection",
        "lightning.pytorch.strategies.Strategy",
        "a training step as a forward pass of the whole module, which gathers what lies outside of the blocks",
    ),
    Use(
        "lightning_modules/supported_trainer.py",
        "_start_method",
        "lightning.pytorch.strategies.DDPStrategy",
        "forked and spawned ranks are refused",
    ),
    Use(
        "lightning_modules/tuning/injection.py",
        "_disable_adapters",
        "peft.tuners.tuners_utils.BaseTunerLayer",
        "enable_adapters also flips requires_grad, which must not change during a run",
    ),
    Use("planning/meter.py", "_cdata", "torch.UntypedStorage", "tells one storage from another, whoever refers to it"),
    Use("planning/pretended_ranks.py", "_internal", "torch.testing", "ranks that are not there: a store of no process"),
    Use("planning/shadow.py", "_guards", "torch", NO_DATA),
    Use("planning/shadow.py", "_subclasses", "torch", NO_DATA),
    Use("planning/shadow.py", "_python_dispatch", "torch.utils", NO_DATA),
    Use("planning/shadow.py", "_pytree", "torch.utils", NO_DATA),
    Use("planning/shadow.py", "_local_scalar_dense", "torch.ops.aten", OPERATOR),
    Use("planning/shadow.py", "_scaled_dot_product_flash_attention_for_cpu", "torch.ops.aten", OPERATOR),
    Use("planning/shadow.py", "_scaled_dot_product_flash_attention_for_cpu_backward", "torch.ops.aten", OPERATOR),
    Use("preparation/speech/flite.py", "_Pointer", "ctypes", "the type of a pointer, for annotations"),
    Use(
        "runs/dashboard/workspace.py",
        "_to_model",
        "wandb_workspaces.workspaces.Workspace",
        "the specification of a workspace without sending it",
    ),
]


def test_no_other_private_name_is_used() -> None:
    found = private_names.asked_of_others() | private_names.overridden()
    listed = {(use.file, use.name) for use in USES}
    assert len(listed) == len(USES)
    assert found - listed == set(), "use a public name, or list it above with the reason"
    assert listed - found == set(), "listed, but no longer used"


@pytest.mark.parametrize("use", USES, ids=lambda use: f"{use.file}:{use.name}")
def test_the_installed_library_has_it(use: Use) -> None:
    if private_names.is_installed(use.owner):  # the extras need not be
        assert private_names.has(private_names.resolve(use.owner), use.name)
    assert use.why


CODE = """
import torch._dynamo
from peft.tuners import _hidden
from .rows import _ours

class Mine(Theirs):
    _class_level = 1

    def _method(self, other):
        self._set = other._not_mine
        super()._overridden()
        self._method(), self._set, self._class_level, other._set, self._inherited
        getattr(other, "_by_string"), vars(other)["_by_key"], other.__dunder__, pair._replace(a=1)
"""


def test_the_search_sees_every_way_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private_names, "files", lambda: {"a.py": ast.parse(CODE)})
    names = {name for _, name in private_names.asked_of_others()}
    asked = {"_not_mine", "_overridden", "_inherited", "_by_string", "_by_key", "_dynamo", "_hidden"}
    assert names == asked
