"""docs/extending.md as it stands: its module, its config and its command, outside of the repository."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file

from tests.support.processes import child_environment
from textkeep.cli.main import main
from textkeep.importance import Snapshot
from textkeep.runs import Run

PAGE = (Path(__file__).resolve().parents[1] / "docs/extending.md").read_text(encoding="utf-8")
MODULE = "\n\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))
CONFIG = yaml.safe_load(re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[1])  # type: ignore[index]
COMMAND = re.search(r"^    (PYTHONPATH=\. textkeep fit .*)$", PAGE, re.MULTILINE)[1]  # type: ignore[index]

PROGRAM = """
import json, sys
from textkeep.cli.main import main
from textkeep.inference import load
assert main(json.loads(sys.argv[1])) == 0
model = load("run", "cpu")
print(json.dumps([type(model.speech_llm.tuning).__name__, model.ask(audio=sys.argv[2])]))
"""


@pytest.mark.slow
def test_the_page_trains_with_a_part_of_each_kind(
    tiny_settings: dict[str, Any], tiny_manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = {**tiny_settings["trainer"], "default_root_dir": "run", "max_steps": 2}
    source = str(tiny_manifest)
    data = {**tiny_settings["data"], "probes": {"text": {"source": source, "modality": "text", "examples": 2}}}
    (tmp_path / "configs").mkdir()
    base = {**tiny_settings, "trainer": trainer, "data": data}
    (tmp_path / "configs/quickstart.yaml").write_text(yaml.safe_dump(base))
    (tmp_path / "my_parts.py").write_text(MODULE)
    (tmp_path / "my_parts.yaml").write_text(yaml.safe_dump(CONFIG))
    torch.manual_seed(0)
    layer = torch.nn.Linear(129, 32)
    save_file(dict(layer.state_dict()), tmp_path / "my_encoder.safetensors")
    setting, verb, *words = shlex.split(COMMAND)
    path = os.pathsep.join([setting.removeprefix("PYTHONPATH="), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-P", "-c", PROGRAM, json.dumps(words), str(tiny_manifest.parent / "0.wav")],
        cwd=tmp_path,
        env=child_environment(PYTHONPATH=path, HOME=str(tmp_path), WANDB_MODE="offline"),
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert (verb, done.returncode) == ("textkeep", 0), done.stderr
    tuning, answer = json.loads(done.stdout.splitlines()[-1])
    assert tuning == "EveryOtherLayer"
    assert isinstance(answer, str)

    run = Run.open(tmp_path / "run")
    assert {"train/smoothed", "train/adaptor_gradient"} <= set(run.metrics)
    assert all(value > 0 for _, value in run.metrics["train/adaptor_gradient"])
    scores = Snapshot.load(tmp_path / "run/importance/text/step=000002")
    assert "squared" in scores.estimators
    assert sum(scores.shares("squared").values()) == pytest.approx(1)
    brief = [json.loads(line) for line in (tmp_path / "run/evaluation/brief/step=000002.jsonl").open()]
    assert len(brief) == 6
    assert [line["correct"] for line in brief] == [len(line["prediction"].split()) <= 3 for line in brief]

    saved = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    layers = {name.split(".")[3] for name in saved if name.startswith("llm.model.layers.")}
    assert layers == {"0"}  # of two
    assert saved["adaptor.hidden.weight"].shape == (64, 32)
    assert not any(name.startswith("encoder.") for name in saved)

    assert main(["ask", str(tmp_path / "run"), "--text", "Who?"]) == 2  # here, the module is out of reach
    (line,) = capsys.readouterr().err.splitlines()
    assert "my_parts.MyEncoder" in line
    assert "No module named 'my_parts'" in line


def test_it_names_what_it_shows() -> None:
    defined = set(re.findall(r"^class (\w+)", MODULE, re.MULTILINE)) - {"Squared"}
    assert set(re.findall(r"class_path: my_parts\.(\w+)", PAGE)) == defined
    assert "--model.encoder.help my_parts.MyEncoder" in " ".join(PAGE.split())
