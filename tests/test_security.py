"""The sentences of ``docs/security.md``, one test each where that is cheap."""

from __future__ import annotations

import ast
import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from textkeep.cli.main import main

ROOT = Path(__file__).parents[1]
FORBIDDEN = {"pickle.load", "pickle.loads", "eval", "exec", "os.system", "yaml.load", "joblib.load"}
ROOMS = ("cli", "callbacks", "datamodules", "evaluation", "foundation", "importance", "inference", "lightning_modules")


def calls() -> Iterator[tuple[str, str, dict[str, ast.expr]]]:
    """File, last name of what is called, and keywords of every call in the package."""
    for path in (file for room in ROOMS for file in (ROOT / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                owner = getattr(getattr(node.func, "value", None), "id", "")
                keywords = {word.arg: word.value for word in node.keywords if word.arg}
                called = f"{owner}.{name}" if isinstance(node.func, ast.Attribute) else name
                yield str(path.relative_to(ROOT)), called, keywords


def test_nothing_is_unpickled_and_no_text_is_run() -> None:
    for file, name, keywords in calls():
        last = name.rpartition(".")[2]
        if name == "torch.load" or last == "load_from_checkpoint":  # the argument of a caller is handed on
            assert ast.unparse(keywords.get("weights_only", ast.Constant(None))) in ("True", "weights_only"), file
        assert name not in FORBIDDEN, file
        assert "allow_pickle" not in keywords, file
        remote = keywords.get("trust_remote_code", ast.Constant(False))
        assert isinstance(remote, ast.Constant), file
        assert remote.value is False or file == "lightning_modules/llm/remote_code.py"
        if last == "from_pretrained" and name.split(".")[0].startswith(("Auto", "kind")):
            assert "trust_remote_code" in keywords, f"{file}: without it transformers asks at a terminal"
        assert "shell" not in keywords, file


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_a_checkpoint_that_would_run_code_is_refused(
    tiny_llm_dir: Path, tiny_whisper_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trap, checkpoint = tmp_path / "ran", tmp_path / "evil.ckpt"
    torch.save({"state_dict": {}, "hyper_parameters": {}, "x": Evil(trap)}, checkpoint)
    assert main(["ask", str(checkpoint), "--text", "hi"]) == 2
    assert "could run code; allowed: a run directory" in capsys.readouterr().err
    settings = {
        "trainer": {"accelerator": "cpu", "max_steps": 1, "logger": False, "default_root_dir": str(tmp_path / "run")},
        "model": {
            "llm": str(tiny_llm_dir),
            "encoder": {"class_path": "WhisperEncoder", "init_args": {"source": str(tiny_whisper_dir)}},
            "adaptor": {"class_path": "ConcatMLP", "init_args": {"stack": 5, "hidden": 32}},
        },
        "data": {"train": str(tmp_path / "q.jsonl"), "train_modalities": "text"},
    }
    (tmp_path / "q.jsonl").write_text('{"id": "a", "question": "Who?", "answers": ["x"]}\n')
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(settings))
    assert main(["fit", "--config", str(tmp_path / "c.yaml"), "--ckpt_path", str(checkpoint)]) == 2
    assert "could run code; allowed: one of `textkeep fit`" in capsys.readouterr().err
    assert not trap.exists()
    assert main(["fit", "--config", str(tmp_path / "c.yaml"), "--ckpt_path", "https://example.org/x.ckpt"]) == 2
    assert "no file https" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["fit", "study"])
def test_a_yaml_tag_makes_no_object(verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(f"model: !!python/object/apply:os.mkdir ['{tmp_path / 'made'}']\n")
    assert main(["fit", "--config", str(config)] if verb == "fit" else ["study", str(config)]) == 2
    assert "python/object/apply" in capsys.readouterr().err
    assert not (tmp_path / "made").exists()


def test_an_archive_cannot_write_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = tmp_path / "s.tar.xz"
    with tarfile.open(archive, "w:xz") as made:
        member = tarfile.TarInfo("s/../../escaped.txt")
        member.size = 2
        made.addfile(member, io.BytesIO(b"hi"))
    assert main(["study", str(tmp_path / "in/new"), "--unpack", str(archive)]) == 2
    assert "--unpack" in capsys.readouterr().err
    assert not list(tmp_path.rglob("escaped.txt"))
