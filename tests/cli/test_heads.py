"""``textkeep importance heads``: of a run, for text and for speech; of two models, before and after."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.measured_runs import MeasuredRun
from tests.support.two_models import write_two_models
from textkeep.cli.importance import main
from textkeep.cli.main import main as textkeep_main
from textkeep.importance import probe
from textkeep.inference import load, read_examples


def test_the_heads_of_a_run(
    measured_run: MeasuredRun,
    talkative_llm_dir: Path,
    tiny_manifest: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A gate gives text the base's weights and speech others: so are their heads."""
    run, data = measured_run("turns"), str(tiny_manifest)
    words = ["--text", data, "--speech", data, "--examples", "4", "--device", "cpu", "--json"]
    capsys.readouterr()
    picture = tmp_path / "heads.png"
    assert main(["heads", str(talkative_llm_dir), str(run), *words, "--top", "2", "3", "--plot", str(picture)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert list(found["heads"]) == ["text before", "text after", "speech after"]
    names = [(pair["first"], pair["second"], pair["top"]) for pair in found["overlaps"]]
    views = list(found["heads"])
    assert names == [(one, two, top) for one, two in [views[:2], views[::2], views[1:]] for top in (2, 3)]
    assert found["heads"]["text before"]["effects"] == found["heads"]["text after"]["effects"]
    assert len(found["overlaps"][0]["shared"]) == 2
    model = load(run, "cpu")
    for modality in ("text", "speech"):
        batches = list(model.inputs(read_examples(data, modality, 4), modality))
        with model.measuring(modality):
            alone = probe(model.llm, batches, ("ablation",), ablate="head")
        told = found["heads"][f"{modality} after"]["effects"]
        assert list(told) == [unit.name for unit in alone.units("ablation")]
        np.testing.assert_allclose([value for value, *_ in told.values()], alone.effects("ablation"), atol=1e-6)


def test_what_it_says(measured_run: MeasuredRun, tiny_manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ["--text", str(tiny_manifest), "--speech", str(tiny_manifest), "--examples", "4", "--device", "cpu"]
    capsys.readouterr()
    assert main(["heads", str(measured_run("turns")), *data, "--show", "1"]) == 0
    told = capsys.readouterr().out
    assert "heads, each taken out in turn; the same ones at the top?" in told
    assert "text / speech" in told
    assert "1 of 1" in told or "0 of 1" in told
    assert "text: 4 examples; " in told
    assert "text before" not in told


def test_the_heads_of_an_audio_llm_for_text_and_speech(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Only the second layer moved: the first one's heads matter in both, as far as the second lets them."""
    models = write_two_models(tmp_path)
    names, data = [str(models / name) for name in ("base", "audio")], str(models / "facts.jsonl")
    capsys.readouterr()
    assert main(["heads", *names, "--text", data, "--speech", data, "--device", "cpu", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found["heads"]) == ["text before", "text after", "speech after"]
    assert [len(view["effects"]) for view in found["heads"].values()] == [8, 8, 8]
    pair, *_ = found["overlaps"]
    assert len(pair["shared"]) + len(pair["only_second"]) == pair["top"] == 1
    audio = load(models / "audio", "cpu")
    chosen = read_examples(data, "speech")
    before = audio.losses(chosen, "speech")
    with torch.no_grad():  # a head is its columns of the output projection
        audio.llm.model.layers[1].self_attn.o_proj.weight[:, 8:16] = 0
    without = (audio.losses(chosen, "speech") - before).mean()
    assert found["heads"]["speech after"]["effects"]["model.layers.1.self_attn.o_proj.weight[head 1]"][
        0
    ] == pytest.approx(without, abs=1e-6)
    base = load(models / "base", "cpu")
    chosen = read_examples(str(models / "facts.jsonl"), "text", 16)
    alone = probe(base.llm, list(base.inputs(chosen, "text")), ("ablation",), ablate="head")
    told = [value for value, *_ in found["heads"]["text before"]["effects"].values()]
    np.testing.assert_allclose(told, alone.effects("ablation"), atol=1e-6)


def test_what_is_refused_is_one_line(
    tiny_llm_dir: Path, tiny_manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["importance", "heads", str(tiny_llm_dir), "--text", str(tiny_manifest), "--device", "cpu"]
    capsys.readouterr()
    assert textkeep_main(words) == 2
    assert "between text and speech; give --speech too" in capsys.readouterr().err
    assert textkeep_main([*words, "--speech", str(tiny_manifest)]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "cannot listen" in line
