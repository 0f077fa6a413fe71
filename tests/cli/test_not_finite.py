"""A run whose losses are no numbers any more: one line, an exit code, and the checkpoint before it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from tests.support.processes import Textkeep

pytestmark = pytest.mark.slow


def test_a_rate_that_is_too_high_ends_the_run_in_a_line(tiny_config: Path, textkeep: Textkeep) -> None:
    settings = yaml.safe_load(tiny_config.read_text())
    settings["trainer"]["callbacks"] = [{"class_path": "RunCheckpoint", "init_args": {"every_n_train_steps": 1}}]
    settings["trainer"] |= {"max_steps": 5, "limit_val_batches": 0}
    settings["model"] |= {"warmup_ratio": 0.0}
    settings["model"]["optimizer"]["init_args"]["lr"] = 1e30
    tiny_config.write_text(yaml.safe_dump(settings))
    done = textkeep("fit", "--config", tiny_config)
    assert done.returncode == 1, done.stderr
    (told,) = [line for line in done.stderr.splitlines() if line.startswith("textkeep: error: ")]
    assert told.startswith("textkeep: error: optimizer step 2: the loss of q")
    assert "is nan (examples of the step: q" in told
    assert "Traceback" not in done.stderr
    (file,) = (tiny_config.parent / "runs/t/checkpoints").glob("step*")
    checkpoint = torch.load(file, weights_only=True)
    assert checkpoint["global_step"] == 1

    name = next(name for name in checkpoint["state_dict"] if name.startswith("llm."))
    checkpoint["state_dict"][name][0] = float("nan")
    torch.save(checkpoint, file)
    run = tiny_config.parent / "runs/t"
    for words in (
        ("ask", run, "--text", "Who?"),
        ("export", run, "-o", "out"),
        ("test", "--config", tiny_config, "--ckpt_path", "last"),
    ):
        done = textkeep(*words)
        assert done.returncode == 2, (words, done.stderr)
        assert f"the checkpoint of step 1 is of no use: {name} is not finite" in done.stderr.splitlines()[-1], words
    assert not (tiny_config.parent / "out").exists()
