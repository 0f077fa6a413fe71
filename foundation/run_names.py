"""The names in a run, each defined once: files and folders, metric keys, and which checkpoint is the newest."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

CONFIG = "config.yaml"
"""The complete configuration of the run, from which it can be started again."""
CHECKPOINTS = "checkpoints"
"""Folder of ``step=000120.ckpt`` files and ``last.ckpt``."""
LAST = "last.ckpt"
"""Inside it: a link to the newest one, or its own file."""
METRICS = "metrics.csv"
"""One line per logged step."""
IMPORTANCE = "importance"
"""Folder of snapshots by probe, one folder per step."""
EVALUATION = "evaluation"
"""Folder of answers, one file per step."""
SUMMARY = "summary.jsonl"
"""In both: one line per measured step."""
PICTURES = "pictures"
"""Folder of the pictures that a file logger keeps."""
ERROR = "error.txt"
"""The traceback of a run that failed."""
FINISHED = "finished.json"
"""Records the step at which a fit ended; a run in progress has none."""
REPORT = "report.html"
COMPARISON = "comparison.html"
"""The page about several runs, in the first one's directory beside its own page."""
"""The page that ``textkeep report`` makes."""
CARD = "card.md"
"""The section for a model card that ``textkeep card`` writes."""
CARD_FIGURES = "card.json"
"""Its figures."""
WANDB = "wandb"
"""Folder of Weights & Biases' own files."""
WANDB_RUN = "wandb_run.json"
"""The id of the W&B run, which a continued run keeps."""
WEIGHT_CHANGE = "weight_change.json"
"""How far the weights moved, by matrix."""
TEST = "test"
"""Inside the folder of answers: those to the test questions, in the same layout."""
DIVERGENCE = "divergence"
"""Inside the folder of answers: forgetting and misalignment, by item."""
VERIFICATION = "verification"
"""Inside the folder of importance: results of tests of the scores, one file per test."""
REMOVALS = "removal*.json"
"""Inside the folder of importance: removal tests."""

PARTS = (CONFIG, METRICS, IMPORTANCE, EVALUATION)
"""What identifies a run directory: it contains at least one of them."""

SLURM_CHECKPOINTS = "hpc_ckpt_*.ckpt"
"""What Lightning itself writes on a SLURM signal, beside the folder of checkpoints."""

_STEP = re.compile(r"step=(\d+)")


def lock_name(verb: str) -> str:
    """Returns the name of the lock file of a run directory; a test has its own, since it writes other files than a fit.

    Args:
        verb: ``fit``, ``validate``, ``test`` or ``predict``.
    """
    return f"{'fit' if verb == 'validate' else verb}.lock"


def step_name(step: int) -> str:
    """Returns the name of what was measured or saved at an optimizer step: ``step=000120``."""
    return f"step={step:06d}"


def step_of(name: str) -> int | None:
    """Reads the optimizer step from such a name; None if it has none."""
    found = _STEP.search(name)
    return int(found[1]) if found else None


def snapshot_folder(run: Path, probe: str, step: int) -> Path:
    """Returns the folder of one measurement of importance: ``importance/<probe>/step=000120``."""
    return run / IMPORTANCE / probe / step_name(step)


def evaluation_folder(run: Path, stage: str, name: str = "") -> Path:
    """Returns the folder of the answers of a stage.

    Args:
        run: The run directory.
        stage: ``val`` or ``test``.
        name: Of a further set of questions; the paired questions of the data module without one.
    """
    return Path(run, EVALUATION, *([TEST] if stage == "test" else []), name)


def records_name(step: int) -> str:
    """Returns the name of the file of answers of a step: ``step=000120.jsonl``."""
    return f"{step_name(step)}.jsonl"


def checkpoints(directory: Path) -> list[Path]:
    """Lists the checkpoints of a run directory, newest first, without links.

    Args:
        directory: The run directory.
    """
    files = [*(directory / CHECKPOINTS).glob("*.ckpt"), *directory.glob(SLURM_CHECKPOINTS)]
    last = (directory / CHECKPOINTS / LAST).resolve()

    def age(path: Path) -> tuple[int, bool, int]:
        # Copies may all have the same time: then the link's target comes first, then the highest step.
        return path.stat().st_mtime_ns, path.resolve() == last, step_of(path.name) or 0

    return sorted((path for path in files if not path.is_symlink()), key=age, reverse=True)


def newest_checkpoint(directory: Path) -> Path | None:
    """Returns the checkpoint that was written last in a run directory, or None."""
    return next(iter(checkpoints(directory)), None)


STEP_METRIC = "trainer/global_step"
"""The x axis of every metric in W&B."""
TRAIN_LOSS = "train/loss"
"""The loss that is minimised, nats per answer token."""
SKIPPED = "data/skipped"
"""Examples that were left out so far."""
SKIPPED_STEPS = "train/skipped_steps"
"""Optimizer steps skipped so far because a loss or a gradient was not finite."""
FORGETTING = "forgetting/kl"
"""SALAD's F (arXiv 2510.13632), nats per answer token."""
MISALIGNMENT = "misalignment/kl"
"""SALAD's M, nats per answer token."""

ADAPTOR_GROUP = "adaptor"
"""Parameter group of the adaptor."""
OTHER_GROUP = "llm.other"
"""Parameter group of the LLM's weights outside the decoder layers."""
RATE_PREFIX = "lr-"
"""Prefix of the learning rates that ``LearningRateMonitor`` logs: ``lr-AdamW/llm.07``."""

HEAT_MAP_CHART = "textkeep_heat_map"
"""Name of the Vega preset of a W&B entity, stored by ``textkeep dashboard``."""
HEAT_MAP_FIELDS = ("step", "layer", "estimator", "share")
"""Columns of the table behind it."""
HEAT_MAP_TABLE = "shares_table"
"""Key under which W&B keeps that table if it was logged as ``shares``."""


def stage_key(stage: str, name: str) -> str:
    """Returns the key of a metric of a stage: ``train/loss``, ``val/text_accuracy``, ``test/hearing_gap``.

    Args:
        stage: ``train``, ``val`` or ``test``; also one of these with the name of a further set (``val/prose``).
        name: Of the metric.
    """
    return f"{stage}/{name}"


def cross_entropy(modality: str) -> str:
    """Returns the name of the cross-entropy of a modality, to be put after a stage: ``speech_ce``."""
    return f"{modality}_ce"


def probe_key(probe: str, name: str) -> str:
    """Returns the key of a probe's measurement that is independent of the estimator: ``importance/<probe>/loss``."""
    return f"importance/{probe}/{name}"


def importance_key(probe: str, estimator: str, name: str) -> str:
    """Returns the key of a figure of importance: ``importance/<probe>/<estimator>/js``, ``…/total``, ``…/layer_07``."""
    return probe_key(probe, f"{estimator}/{name}")


def importance_picture(probe: str, name: str) -> str:
    """Returns the key of a picture or table of importance: ``importance_media/<probe>/heat_map``."""
    return f"importance_media/{probe}/{name}"


BUDGET_PREFIX = "budget/"
"""Prefix of the keys of a text budget's figures."""


BUDGET_WEIGHT = "weight_"
"""Prefix of the name of a weight that follows a budget: ``budget/<text>/weight_l2sp``."""


def budget_name(text: str) -> str:
    """Returns a budget's name in keys, from its text's: ``plain-text-probe``, or ``manual`` for manual.txt."""
    stem = re.sub(r"(\.(txt|jsonl))(\.gz)?$", "", text)
    return re.sub(r"[^\w.]+", "-", stem if stem == text else stem.rsplit("/", 1)[-1]).strip("-")


def budget_key(text: str, name: str) -> str:
    """Returns the key of a figure of a budget: ``budget/<text>/increase``, ``…/low``, ``…/high``, ``…/allowed``."""
    return f"{BUDGET_PREFIX}{text}/{name}"


def budget_texts(keys: Iterable[str]) -> list[str]:
    """Finds the texts that have a budget, by their names in the keys of a run's metrics."""
    end = budget_key("", "increase").removeprefix(BUDGET_PREFIX)
    found = [key.removeprefix(BUDGET_PREFIX) for key in keys if key.startswith(BUDGET_PREFIX)]
    return [name.removesuffix(end) for name in found if name.endswith(end)]


LAYER_PREFIX = "layer_"
"""Prefix of a decoder layer's label."""


def layer_label(layer: int, layers: int) -> str:
    """Returns the label of a decoder layer in keys and files, as wide as the last one's: ``layer_07``."""
    return f"{LAYER_PREFIX}{layer:0{max(2, len(str(layers - 1)))}d}"


def layer_number(label: str) -> int:
    """Reads the number of the decoder layer from its label."""
    return int(label.rsplit("_", 1)[-1])


def layer_group(layer: int) -> str:
    """Returns the name of the parameter group of a decoder layer: ``llm.07``."""
    return f"llm.{layer:02d}"
