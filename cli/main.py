"""The command ``textkeep``: finds the verb, imports only what it needs, and turns errors into one line.

Example:
    ``textkeep fit --config configs/quickstart.yaml``
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import NamedTuple

from ..callbacks.stopping.stop_signals import STOP_SIGNALS
from ..foundation.errors import FAILED, INTERRUPTED, MachineError, RunError, UserError
from ..foundation.signals import ending_at_interrupt
from .errors import EXPECTED, complain, debugging, one_line
from .loading import announcing
from .machine_faults import machine_fault


class Verb(NamedTuple):
    """A verb of the command line."""

    target: str
    """``module:function``, the module relative to this package. Takes arguments, returns the exit code."""

    summary: str
    """Its line in ``textkeep --help``."""

    trains: bool = False
    """Whether it runs a Trainer, which must stop at the signal that SLURM sends before the time limit."""

    loads: str = ""
    """The large libraries it has to load: that takes seconds, or minutes on a cluster's file system."""

    clone_only: bool = False
    """Whether it works only in a clone of the repository, since what it reads is not in the wheel."""


MODELS = "PyTorch and transformers"
TRAINING = "PyTorch, Lightning and transformers"

VERBS: dict[str, Verb] = {
    "fit": Verb(".training_verbs:fit", "train a speech LLM from a config file", trains=True, loads=TRAINING),
    "validate": Verb(
        ".training_verbs:validate", "run the validation of a config on a checkpoint", trains=True, loads=TRAINING
    ),
    "test": Verb(".training_verbs:test", "score a checkpoint on the test questions", trains=True, loads=TRAINING),
    "predict": Verb(".training_verbs:predict", "write a checkpoint's answers to a file", trains=True, loads=TRAINING),
    "plan": Verb(".plan:main", "predict memory, time and disk of a run before it starts", loads=TRAINING),
    "ask": Verb(".ask:main", "ask a run or a checkpoint a question, spoken or written", loads=MODELS),
    "report": Verb(".report:main", "make an HTML page of one or several runs", loads="PyTorch"),
    "card": Verb(".card:main", "write what a run kept and learned, for a model card and for CI", loads="PyTorch"),
    "watch": Verb(".watch:main", "show a run in the terminal, live, from its directory"),
    "dashboard": Verb(".dashboard:main", "save a W&B workspace that shows a project's runs"),
    "study": Verb(".study:main", "run the arms, seeds and grids of a plan, here or on SLURM"),
    "benchmark": Verb(".benchmark:main", "run text benchmarks of lm-eval on a run's LLM", loads=MODELS),
    "importance": Verb(".importance:main", "measure, compare, test and explain parameter importance", loads=MODELS),
    "export": Verb(".export:main", "write a run's LLM and speech parts as a Hugging Face folder", loads=MODELS),
    "interpolate": Verb(".interpolate:main", "score mixtures of the untouched LLM and a run's", loads=MODELS),
    "adaptor": Verb(".adaptor:main", "save a run's adaptor, so that another run can start from it", loads=MODELS),
    "assets": Verb(".assets:main", "fetch and convert the small models that the examples use"),
    "speak": Verb(".speak:main", "turn text questions into spoken ones"),
    "rewrite": Verb(".rewrite:main", "rewrite a manifest's targets in the words of the untouched LLM", loads=MODELS),
    "facts": Verb(
        ".facts:main", "rebuild the Spoken Facts data set from its sources (in a clone only)", clone_only=True
    ),
}


def usage() -> str:
    """Returns the text of ``textkeep --help``."""
    width = max(map(len, VERBS))
    lines = [f"  {name:<{width}}  {verb.summary}" for name, verb in VERBS.items()]
    return "\n".join(
        [
            "usage: textkeep VERB [options]",
            "",
            "Teach a text LLM to listen without letting it forget its text.",
            "",
            "verbs:",
            *lines,
            "",
            "textkeep VERB --help explains a verb; textkeep --version prints the version.",
            "TEXTKEEP_DEBUG=1 shows the traceback of an error.",
        ]
    )


def load(name: str) -> Callable[[list[str]], int]:
    """Imports the function behind a verb.

    Args:
        name: A key of ``VERBS``.

    Raises:
        UserError: If there is no such verb (the message lists the verbs), or it works only in a clone.
        ImportError: If the verb's module, or something that it needs, is not installed.
    """
    if name not in VERBS:
        near = get_close_matches(name, VERBS, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise UserError(f"no verb {name!r}{hint}; allowed: {', '.join(VERBS)}")
    module, function = VERBS[name].target.split(":")
    try:
        return getattr(import_module(module, package=__package__), function)
    except ModuleNotFoundError as error:
        if not VERBS[name].clone_only or __package__.split(".")[0] not in (error.name or ""):
            raise
        raise UserError(f"{name} works only in a clone of the repository: {error.name} is not installed") from error


def run(argv: Sequence[str]) -> int:
    """Runs one command line.

    Args:
        argv: The words after ``textkeep``.

    Returns:
        The exit code.
    """
    if not argv or argv[0] in {"-h", "--help", "help"}:
        print(usage())
        return 0
    if argv[0] == "--version":
        from importlib.metadata import version

        print(f"textkeep {version('textkeep')}")
        return 0
    if argv[0] in VERBS and VERBS[argv[0]].trains and "SLURM_JOB_ID" in os.environ:
        STOP_SIGNALS.note_requeue()  # before torch is imported, which may take minutes
    with announcing(VERBS[argv[0]].loads if argv[0] in VERBS else ""):
        with ending_at_interrupt():
            verb = load(argv[0])
        return verb(list(argv[1:]))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the console script.

    Args:
        argv: The words after ``textkeep``; those of the process by default.

    Returns:
        0 on success, 1 after a fault of the machine or a run, 2 after another reported error, 130 after Ctrl-C.
    """
    arguments = sys.argv[1:] if argv is None else argv
    try:
        return run(arguments)
    except KeyboardInterrupt:
        return INTERRUPTED
    except (RunError, MachineError) as error:
        if debugging():
            raise
        return complain(one_line(error), FAILED)
    except Exception as error:
        if debugging():
            raise
        if (fault := machine_fault(error)) is not None:
            return complain(fault, FAILED)
        if isinstance(error, EXPECTED):
            return complain(one_line(error))
        raise


if __name__ == "__main__":
    sys.exit(main())
