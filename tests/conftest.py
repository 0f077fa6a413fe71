"""Shared fixtures: tiny random models built from config objects, no hub and no download."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.tiny_models import write_tiny_llm, write_tiny_whisper

from .skips import pytest_make_collect_report, pytest_runtest_makereport  # noqa: F401 - hooks of pytest
from .support.measured_runs import measured_run, talkative_llm_dir  # noqa: F401 - fixtures
from .support.tiny_runs import plan, textkeep, tiny_config, tiny_manifest, tiny_settings  # noqa: F401 - fixtures


def pytest_configure() -> None:
    """Hears Ctrl-C and the end of a terminal, and lets the processes that tests start hear them.

    A shell that starts tests in the background, or under ``nohup``, has them ignored, and processes hand that on.
    """
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


LOGGERS = ("lightning.pytorch", "lightning.fabric", "transformers", "lm_eval", "wandb")


@pytest.fixture(autouse=True)
def levels_stay() -> Iterator[None]:
    """Holds that no command run in this process leaves a library's logger silent for whatever comes after it."""
    before = [logging.getLogger(name).level for name in LOGGERS]
    yield
    after = [logging.getLogger(name).level for name in LOGGERS]
    silenced = [name for name, was, level in zip(LOGGERS, before, after, strict=True) if was != level and was]
    assert not silenced, f"left with another level: {silenced}"


@pytest.fixture(scope="session")
def tiny_llm_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer random Llama (hidden 32, tied embeddings) with a byte-level BPE tokenizer and a chat template."""
    return write_tiny_llm(tmp_path_factory.mktemp("tiny_llm"))


@pytest.fixture(scope="session")
def tiny_tokenizer(tiny_llm_dir: Path) -> Any:
    """The tokenizer of ``tiny_llm_dir``."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_llm_dir)


@pytest.fixture(scope="session")
def tiny_whisper_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer random Whisper (d_model 32, 80 mel bins, 1500 positions) with its feature extractor."""
    return write_tiny_whisper(tmp_path_factory.mktemp("tiny_whisper"))
