"""``textkeep importance`` on a tiny model: every command once, its files, its refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from textkeep.cli.errors import CommandError
from textkeep.cli.importance import main
from textkeep.importance import Snapshot

QUESTIONS = [f"What is the capital of country {i}?" for i in range(12)]


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    lines = [{"id": f"q{i}", "question": q, "answers": [f"Paris {i}"]} for i, q in enumerate(QUESTIONS)]
    path = tmp_path / "facts.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture
def tuned_dir(tiny_llm_dir: Path, tmp_path: Path) -> Path:
    """The tiny model with its weights moved a little."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tiny_llm_dir)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "layers.1.mlp" in name:
                parameter.add_(0.05 * torch.randn_like(parameter))
    model.save_pretrained(tmp_path / "tuned")
    AutoTokenizer.from_pretrained(tiny_llm_dir).save_pretrained(tmp_path / "tuned")
    return tmp_path / "tuned"


def data(manifest: Path) -> list[str]:
    return ["--data", str(manifest), "--examples", "5", "--batch-size", "2", "--device", "cpu"]


def test_probe_compare_show(
    tiny_llm_dir: Path, tuned_dir: Path, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [tmp_path / "before", tmp_path / "after"]
    for model, folder in zip((tiny_llm_dir, tuned_dir), folders, strict=True):
        assert main(["probe", str(model), *data(manifest), "-o", str(folder), "--top-fraction", "0.05", "--maps"]) == 0
    assert "layer_01" in capsys.readouterr().out
    snapshot = Snapshot.load(folders[0])
    assert len(snapshot.losses) == 5
    assert snapshot.meta["name"] == "facts"
    assert set(snapshot.maps) == {"taylor", "fisher"}
    assert main(["compare", *map(str, folders), "--estimator", "taylor", "--json"]) == 0
    shift = json.loads(capsys.readouterr().out)[0]
    assert shift["metrics"]["js"]["value"] > 0
    assert 0 < shift["top_overlap"] <= 1
    assert main(["compare", *map(str, folders)]) == 0
    assert "half against half" in capsys.readouterr().out
    assert main(["show", str(folders[0]), "--group", "kind", "--json", "--estimator", "fisher"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert sum(shown["shares"].values()) == pytest.approx(1.0)
    assert main(["show", str(folders[0]), "--structure", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["stable_rank"] >= 1
    for argv in (["show", str(folders[0])], ["compare", *map(str, folders)]):
        assert main([*argv, "--plot", str(tmp_path / f"{argv[0]}.png")]) == 0
        assert (tmp_path / f"{argv[0]}.png").read_bytes().startswith(b"\x89PNG")


def test_removal_and_verify(
    tiny_llm_dir: Path, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["removal", str(tiny_llm_dir), *data(manifest), "-o", str(tmp_path / "removal.json")]) == 0
    assert "top > random > bottom" in capsys.readouterr().out
    stored = json.loads((tmp_path / "removal.json").read_text())
    assert [row["removed"] for row in stored["rows"]] == ["none", "top", "random", "bottom"]
    assert main(["verify", str(tiny_llm_dir), *data(manifest), "--groups", "6", "--shrink", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {r["score"] for r in found["results"]} == {"taylor", "fisher", "signed_taylor", "magnitude", "random"}


def test_attribute(
    tiny_llm_dir: Path, tuned_dir: Path, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["attribute", str(tiny_llm_dir), str(tuned_dir), *data(manifest), "--plot", str(tmp_path / "a.png")]
    assert main(argv) == 0
    assert "completeness error" in capsys.readouterr().out
    assert main([*argv, "--json"]) == 0
    found = json.loads(capsys.readouterr().out.split("\n", 1)[1])
    assert abs(found["completeness_error"]) < 0.05
    assert set(found["parameters"]) == {f"model.layers.1.mlp.{k}_proj.weight" for k in ("gate", "up", "down")}
    assert (tmp_path / "a.png").exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["prob"], "no command 'prob'; allowed: probe"),
        (["probe", "nowhere/none", "--data", "x.jsonl", "-o", "out", "--device", "cpu"], "cannot be loaded"),
        (["probe", "{llm}", "--data", "{data}", "--modality", "speech", "-o", "out"], "cannot listen"),
        (["probe", "{llm}", "--data", "{data}", "--estimators", "tailor", "-o", "out"], "unknown estimator tailor"),
        (["probe", "{llm}", "--data", "{data}", "-o", "{llm}"], "is no snapshot"),
        (["removal", "{llm}", "--data", "{data}", "--examples", "12"], "has only 12 examples"),
        (["show", "{llm}"], "no snapshot"),
        (["probe", "{llm}", "--data", "{data}", "-o", "out", "--device", "warp9"], "--device warp9"),
    ],
)
def test_refusals_are_one_line(
    argv: list[str], message: str, tiny_llm_dir: Path, manifest: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [word.format(llm=tiny_llm_dir, data=manifest) for word in argv]
    with pytest.raises((CommandError, ValueError, OSError), match=message) as caught:
        main(words)
    assert "\n" not in str(caught.value).strip()
