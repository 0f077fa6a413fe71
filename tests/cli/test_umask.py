"""What is written follows the umask: a run directory is shared with colleagues, or with nobody, as its owner says."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.processes import child_environment
from tests.support.speech_run import make_model
from textkeep.datamodules.batches.feature_cache import _save as save_features
from textkeep.evaluation import Prediction, write_predictions
from textkeep.foundation.files import write_json
from textkeep.importance import Matrix, Snapshot
from textkeep.lightning_modules import ConcatMLP, SpeechLLM, WhisperEncoder
from textkeep.lightning_modules.objectives.cached_teacher import _save as save_answer
from textkeep.lightning_modules.saving.adaptor_file import save_adaptor
from textkeep.lightning_modules.saving.export_folder import write_export
from textkeep.runs.study.state import JobState, StateStore

ROOT = Path(__file__).parents[2]
PACKAGES = ("callbacks", "cli", "datamodules", "evaluation", "foundation", "importance", "lightning_modules")
PRIVATE = {"mkstemp", "mkdtemp", "NamedTemporaryFile", "SpooledTemporaryFile"}  # made 0600 or 0700, and then renamed
TENSORS = {"save_file", "save_model", "save_pretrained"}  # safetensors makes its files 0600


@pytest.fixture(params=[0o022, 0o027, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def assert_follows(folder: Path, umask: int) -> None:
    """Every file below a folder, and every folder."""
    for path in folder.rglob("*"):
        if not path.is_symlink():
            expected = (0o777 if path.is_dir() else 0o666) & ~umask
            assert path.stat().st_mode & 0o777 == expected, path


def snapshot() -> Snapshot:
    meta = {"step": 3, "heads": [], "layers": 1, "options": {}}
    masks, maps = {"taylor": [np.ones(1, dtype=np.uint8)]}, {"taylor": [torch.zeros(2, 3)]}
    ones = {"taylor": np.ones((2, 1))}
    table = [Matrix("layers.0.up.weight", (2, 3), 0, "up")]
    sides = {"taylor": [np.ones(2)]}, {"taylor": [np.ones(3)]}
    return Snapshot(table, ones, {}, *sides, [np.zeros(0)], np.ones(2), np.ones(2), meta, masks, maps)


def test_every_kind_of_file(tmp_path: Path, umask: int, tiny_whisper_dir: Path) -> None:
    snapshot().save(tmp_path / "importance" / "step=000003")
    (tmp_path / "cache").mkdir()
    save_features(tmp_path / "cache" / "a.safetensors", torch.zeros(2, 2), 4)
    save_answer(tmp_path / "teacher" / "b.safetensors", {"x": torch.zeros(2)})
    adaptor = ConcatMLP(stack=5, hidden=16)
    adaptor.build(8, 8)
    encoder = WhisperEncoder(str(tiny_whisper_dir))
    encoder.load()
    save_adaptor(tmp_path / "adaptor.safetensors", adaptor, encoder, "llm")
    write_predictions(tmp_path / "evaluation" / "step=000003.jsonl", [Prediction("a", "text")])
    write_json({"a": 1}, tmp_path / "report.json")
    StateStore(tmp_path / "study").write(JobState("job"))
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 10
    assert_follows(tmp_path, umask)


def test_an_export(tmp_path: Path, umask: int, tiny_llm_dir: Path, tiny_whisper_dir: Path) -> None:
    model: SpeechLLM = make_model(tiny_llm_dir, tiny_whisper_dir)
    settings = {"encoder": None, "adaptor": None, "max_new_tokens": 4, "tuning": None}
    for _ in range(2):  # the second replaces the first
        write_export(tmp_path / "out", model, settings, {}, {})
        assert (tmp_path / "out" / "model.safetensors").is_file()
        assert_follows(tmp_path, umask)


RUN = """
import sys
from textkeep.cli.main import main
config, run, out = sys.argv[1:]
assert main(["fit", "--config", config, f"--trainer.default_root_dir={run}", "--trainer.logger=true"]) == 0
assert main(["export", run, "-o", out]) == 0
assert main(["report", run]) == 0
"""


@pytest.mark.slow
def test_a_run_its_export_and_its_report(tmp_path: Path, tiny_config: Path) -> None:
    """In a process of its own: the checkpoint's writer reads the umask once."""
    words = [sys.executable, "-c", RUN, str(tiny_config), str(tmp_path / "all/run"), str(tmp_path / "all/out")]
    subprocess.run(words, check=True, umask=0o027, cwd=ROOT, env=child_environment(), timeout=240)
    assert list((tmp_path / "all").rglob("*.ckpt"))
    assert list((tmp_path / "all").rglob("report*"))
    assert_follows(tmp_path / "all", 0o027)


def calls(tree: ast.AST) -> set[str]:
    """Names of all functions and methods that are called."""
    found = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return {f.attr if isinstance(f, ast.Attribute) else f.id for f in found if isinstance(f, ast.Attribute | ast.Name)}


def test_no_writer_makes_private_files() -> None:
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            called = calls(ast.parse(path.read_text(encoding="utf-8")))
            assert not called & PRIVATE, f"{path}: write under a name of its own beside the target and rename it"
            if called & TENSORS:
                assert "follow_umask" in called, f"{path}: {called & TENSORS} makes private files; call follow_umask"
