"""The overlays of strategies, objectives and hybrids over the quickstart, and of a budget, on tiny models."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import Callback, LightningModule, Trainer

from textkeep.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs"
NEEDS_GPU = {"qlora"}
OVERLAYS = [
    *sorted(
        path
        for folder in ("tuning", "objectives", "hybrids")
        for path in (CONFIGS / folder).glob("*.yaml")
        if path.stem not in NEEDS_GPU
    ),
    CONFIGS / "callbacks/text_budget_control.yaml",
]


def overlay_name(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


class RankDigest(Callback):
    """Writes a hash of all weights of this rank into the run directory, before and after training."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write("before", trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write("after", trainer, pl_module)

    def _write(self, when: str, trainer: Trainer, pl_module: LightningModule) -> None:
        digest = hashlib.sha256()
        for name, tensor in sorted(pl_module.state_dict().items()):
            digest.update(f"{name}{tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().contiguous().numpy().tobytes())
        folder = Path(trainer.default_root_dir, "digests")
        folder.mkdir(exist_ok=True)
        (folder / f"{when}-rank{trainer.global_rank}").write_text(digest.hexdigest())


def tiny_overlay(settings: dict[str, Any], folder: Path, steps: int, callbacks: list[Any]) -> Path:
    """A config that turns the quickstart into a run of some steps on tiny models.

    Args:
        settings: ``tiny_settings`` of the fixtures.
        folder: Gets the file.
        steps: Optimizer steps.
        callbacks: In the place of the quickstart's.
    """
    manifest = settings["data"]["train"][0]
    probes = {
        name: {"source": manifest, "modality": modality, "examples": 4}
        for name, modality in (("indomain_text", "text"), ("heldout_text", "text"), ("speech", "speech"))
    }
    values = {
        "trainer": {
            **settings["trainer"],
            "max_steps": steps,
            "val_check_interval": steps,
            "logger": {"class_path": "RunCSVLogger"},
            "callbacks": callbacks,
            "enable_progress_bar": False,
        },
        "model": {**settings["model"], "adaptor_weights": None},
        "data": {**settings["data"], "tokens_per_batch": 160, "probes": probes},
    }
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def words(overlay: Path | None, tiny: Path, run: Path, *more: str) -> list[str]:
    """A ``fit`` of the quickstart, made tiny, with an overlay (``None`` for none)."""
    files = [CONFIGS / "quickstart.yaml", tiny, *([overlay] if overlay else [])]
    named = [word for file in files for word in ("--config", str(file))]
    needed = TINY.get(overlay_name(overlay), ()) if overlay else ()
    return ["fit", *named, "--trainer.default_root_dir", str(run), *needed, *more]


#: What an overlay needs to fit two layers and six questions.
TINY: dict[str, tuple[str, ...]] = {
    "tuning/freeze_lower": ("--model.tuning.init_args.layers", "1"),
    "tuning/oplora": ("--model.tuning.init_args.k", "4"),
}


def rank_environment(rank: int, port: int, size: int = 2) -> dict[str, str]:
    """Of one of some processes, started by hand."""
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "LOCAL_RANK": str(rank),
        "NODE_RANK": "0",
        "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def prepare(overlay: Path | None, settings: dict[str, Any]) -> None:
    """Runs what the overlay's header puts before the fit, on the tiny LLM and data, in the current folder."""
    text = overlay.read_text().replace("\\\n#", " ") if overlay else ""
    for line in re.findall(r"^#   textkeep (.*)$", text, re.MULTILINE):
        given = shlex.split(line)
        if given[0] == "fit" or Path(given[given.index("-o") + 1]).exists():
            continue
        if given[0] == "rewrite":  # a random LLM never ends an answer: test_rewrite.py is about the command
            _write_targets(Path(settings["data"]["train"][0]), Path(given[given.index("-o") + 1]))
            continue
        line = re.sub(r"asset:smollm2-\S+", settings["model"]["llm"], line)
        line = re.sub(r"spoken-facts/\w+", settings["data"]["train"][0], line)
        assert main(shlex.split(re.sub(r"--examples \d+", "--examples 4", line))) == 0


def _write_targets(manifest: Path, output: Path) -> None:
    """A manifest of the same questions with other targets, and their clips beside it."""
    shutil.copytree(manifest.parent, output.parent, dirs_exist_ok=True)
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    output.write_text("".join(json.dumps({**row, "target": f"It is {row['id']}."}) + "\n" for row in rows))
