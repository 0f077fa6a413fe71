"""Library notices that are irrelevant to the user's run."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

KNOWN = (
    r"`?isinstance\(treespec, LeafSpec\)",  # Lightning's own code, as of torch 2.13
    r"Found \d+ module\(s\) in eval mode",  # frozen parts stay in eval mode by design
    r"Checkpoint directory .* exists and is not empty",  # the run is being continued
    r"Be aware that when using `ckpt_path`, callbacks used to create",  # validate and test save no checkpoints
    r"Couldn't infer the batch indices",  # the answers carry their ids
    r"The anonymous setting has no effect",
)
SRUN = r"The `srun` command is available on your system but is not used"  # a hint for users inside a job
TIPS = (
    "litlogger",
    "litmodels",
    "TPU available",
    "GPU available: False",
    "Loading `train_dataloader` to estimate",
    "Trainer already configured with model summary callbacks",
    "` was configured so",  # what the config says
    "Restoring states from",  # the command, or "Loaded model weights", already names the checkpoint
    "Restored all states",
    "`Trainer.fit` stopped: `max_",  # the run ends as its config says
)


class CurrentStderr(logging.StreamHandler[Any]):
    """Writes to the current ``sys.stderr``.

    While a progress bar is shown, rich replaces it and puts lines above the bar; anything written past it would
    continue at the end of the bar.
    """

    @property
    def stream(self) -> Any:
        """The current stream."""
        return sys.stderr

    @stream.setter
    def stream(self, stream: Any) -> None:
        """Keeps none."""


@contextmanager
def log_level(name: str, level: int) -> Iterator[None]:
    """Silences the logger ``name`` below ``level`` within the context; the caller may want its notices afterwards."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)


def quieten() -> None:
    """Silences the known notices and the bars of weight loading, in this process and in its workers."""
    outside_slurm = () if "SLURM_JOB_ID" in os.environ else (SRUN,)
    for message in KNOWN + outside_slurm:
        warnings.filterwarnings("ignore", message=message)
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.rank_zero"):
        logging.getLogger(name).addFilter(lambda record: not any(tip in record.getMessage() for tip in TIPS))
    for name in ("lightning.pytorch", "lightning.fabric"):
        logger = logging.getLogger(name)
        for handler in [handler for handler in logger.handlers if type(handler) is logging.StreamHandler]:
            logger.removeHandler(handler)
            logger.addHandler(CurrentStderr())
    logging.getLogger("lightning.fabric.utilities.seed").setLevel(logging.WARNING)
    # The tokenizer warns, once per worker, that it was used before the process forked.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
