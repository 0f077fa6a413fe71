"""Text benchmarks through lm-eval, on a model that is already in memory."""

from __future__ import annotations

import copy
import io
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml

from ..foundation.quiet import log_level
from ..foundation.text_lines import read_text
from .predictions import Prediction
from .statistics import wilson_interval

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TASKS = Path(__file__).parent / "tasks"
"""Tasks that ship with the package, found by name like lm-eval's own."""

_PER_ITEM = ("acc", "exact_match")
_SHARES = (*_PER_ITEM, "acc_norm")  # metrics that are shares of the items


@dataclass
class BenchmarkScores:
    """What lm-eval found.

    Attributes:
        values: ``<task>/<metric>`` (a filter other than ``none`` is added to the metric: ``exact_match,strict``).
        errors: Standard errors of the same keys, as estimated by lm-eval; if it gives none, the key is missing.
        records: One per item of tasks that score items as right or wrong.
        versions: Versions of the tasks.
        items: Number of items per task.
    """

    values: dict[str, float] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)
    records: list[Prediction] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    items: dict[str, int] = field(default_factory=dict)

    def intervals(self) -> dict[str, tuple[float, float]]:
        """Returns 95 % intervals: Wilson's for shares of items, else normal ones, infinite without a standard error."""
        return {key: self._share(key) or self._normal(key) for key in self.values}

    def _share(self, key: str) -> tuple[float, float] | None:
        task, _, metric = key.rpartition("/")
        right = self.values[key] * self.items.get(task, 0)
        if metric.partition(",")[0] not in _SHARES or task not in self.items or abs(right - round(right)) > 1e-6:
            return None
        return wilson_interval(round(right), self.items[task])[1:]

    def _normal(self, key: str) -> tuple[float, float]:
        spread = 1.96 * self.errors.get(key, float("inf"))
        return self.values[key] - spread, self.values[key] + spread


def run_benchmarks(
    llm: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tasks: Sequence[str],
    limit: int | None = None,
    num_fewshot: int | None = None,
    batch_size: int = 8,
    apply_chat_template: bool = False,
) -> BenchmarkScores:
    """Scores a language model, adapters in it included, without writing it to disk.

    Args:
        llm: A causal LM.
        tokenizer: Its tokenizer; it is not changed.
        tasks: Names of lm-eval's tasks or groups, of tasks in ``TASKS``, or paths of task YAML files. Data that
            lm-eval's own tasks take from the Hugging Face hub are downloaded unless they are in the cache or
            ``HF_HUB_OFFLINE=1``; a line says so.
        limit: Maximum number of items per task.
        num_fewshot: Examples in the prompt; None takes the task's own number.
        batch_size: Sequences per batch.
        apply_chat_template: Put the prompts into the model's chat format.

    Raises:
        ValueError: If a task is unknown or its data cannot be loaded.
        ImportError: If lm-eval is not installed.
    """
    try:
        import lm_eval
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise ImportError(f"text benchmarks need lm-eval: pip install 'textkeep[lm-eval]' ({error})") from error
    with _quiet():
        manager = TaskManager(include_path=str(TASKS))
        for task in tasks:
            _known(task, manager)
        _tell_downloads(tasks)
        wrapped = HFLM(
            pretrained=llm,
            tokenizer=copy.deepcopy(tokenizer),
            backend="causal",
            batch_size=batch_size,
            max_length=getattr(llm.config, "max_position_embeddings", None),
            softmax_dtype=torch.promote_types(llm.dtype, torch.float32),  # otherwise sums of bfloat16 log-probabilities
        )
        with _data_named(tasks):
            found = lm_eval.simple_evaluate(
                model=wrapped,
                tasks=list(tasks),
                num_fewshot=num_fewshot,
                limit=limit,
                bootstrap_iters=1000,
                apply_chat_template=apply_chat_template,
                task_manager=manager,
            )
    return _scores(found)


@contextmanager
def _data_named(tasks: Sequence[str]) -> Iterator[None]:
    """Turns problems with data into an error that names the tasks."""
    from datasets.exceptions import DatasetGenerationError

    try:
        yield
    except (ConnectionError, FileNotFoundError, DatasetGenerationError) as error:
        cause = error.__cause__ if isinstance(error, DatasetGenerationError) and error.__cause__ else error
        reason = (str(cause) or type(cause).__name__).splitlines()[0]
        raise ValueError(f"text benchmarks: the data of {', '.join(tasks)} cannot be loaded: {reason}") from error


def _known(task: str, manager: TaskManager) -> None:
    if task in manager.all_tasks:
        return
    if task.endswith((".yaml", ".yml")) and Path(task).is_file():
        _require_yaml(task)
        return
    from difflib import get_close_matches

    near = ", ".join(get_close_matches(task, manager.all_tasks, n=3))
    hint = f"did you mean {near}?" if near else "lm-eval ls tasks shows all"
    raise ValueError(
        f"text benchmarks: no task {task!r} ({hint}); allowed: a task or group of lm-eval, a task YAML file"
    )


def _require_yaml(path: str) -> None:
    """Refuses a task file that is not YAML; its ``!function`` tags are left to lm-eval.

    Raises:
        ValueError: With file and line.
    """
    try:
        yaml.compose(read_text(path))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ValueError(f"{path}:{line}: {error.problem}; allowed: a task of lm-eval in YAML") from error
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: {error}; allowed: a task of lm-eval in YAML") from error


def _tell_downloads(tasks: Sequence[str]) -> None:
    from huggingface_hub.constants import HF_HUB_OFFLINE

    local = {path.stem for path in TASKS.glob("*.yaml")}
    far = [task for task in tasks if task not in local and not task.endswith((".yaml", ".yml"))]
    if far and not HF_HUB_OFFLINE:
        where = "the Hugging Face hub (HF_HUB_OFFLINE=1 forbids it)"
        print(f"{', '.join(far)}: data that are not in the cache come from {where}", flush=True)


def _scores(found: Mapping[str, Any]) -> BenchmarkScores:
    scores = BenchmarkScores(versions={task: str(version) for task, version in found.get("versions", {}).items()})
    for task, metrics in found["results"].items():
        for key, value in metrics.items():
            metric, _, which = key.partition(",")
            if not isinstance(value, int | float) or not which:
                continue
            name = f"{task}/{metric.removesuffix('_stderr')}" + ("" if which == "none" else f",{which}")
            (scores.errors if metric.endswith("_stderr") else scores.values)[name] = float(value)
    for task, samples in found.get("samples", {}).items():
        scores.items[task] = len({sample["doc_id"] for sample in samples})
        scores.records += [record for sample in samples if (record := _record(task, sample)) is not None]
    return scores


def _record(task: str, sample: Mapping[str, Any]) -> Prediction | None:
    metric = next((name for name in _PER_ITEM if isinstance(sample.get(name), int | float)), None)
    if metric is None or sample[metric] not in (0, 1):
        return None
    responses = sample.get("filtered_resps") or [None]
    text = responses[0] if len(responses) == 1 and isinstance(responses[0], str) else None
    pairs = [response for response in responses if isinstance(response, list | tuple)]  # (log-likelihood, is greedy)
    which = "" if sample.get("filter", "none") == "none" else f",{sample['filter']}"
    return Prediction(
        id=f"{task}{which}/{sample['doc_id']}",
        modality="text",
        answers=(str(sample["target"]),),
        prediction=text,
        correct=bool(sample[metric]),
        source=task,
        category=task,
        scores=tuple(float(pair[0]) for pair in pairs),
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences lm-eval's irrelevant notices, and its progress bars if they would fill a log file."""
    with log_level("lm_eval", logging.ERROR), nullcontext() if sys.stderr.isatty() else redirect_stderr(io.StringIO()):
        yield
