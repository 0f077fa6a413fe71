"""``textkeep importance`` on a tiny model: every command once, its files, its refusals."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
import yaml

from textkeep.cli.importance import main
from textkeep.cli.main import main as textkeep_main
from textkeep.cli.reverting import read_culprits
from textkeep.foundation.errors import UserError
from textkeep.importance import Snapshot, compare, probe
from textkeep.importance.estimators import registry
from textkeep.importance.evaluate import answer_losses
from textkeep.importance.reverts import blamed
from textkeep.inference import load, read_examples
from textkeep.inference.merging import merge

Run = Callable[[list[str]], str]

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


@pytest.fixture
def run_main(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command that must succeed; gives what it printed on standard output."""

    def run(argv: list[str]) -> str:
        capsys.readouterr()
        assert main(argv) == 0
        return capsys.readouterr().out

    return run


def data(manifest: Path) -> list[str]:
    return ["--data", str(manifest), "--examples", "5", "--batch-size", "2", "--device", "cpu"]


def test_probe_without_vectors_and_self_test(tiny_llm_dir: Path, manifest: Path, tmp_path: Path, run_main: Run) -> None:
    folder = tmp_path / "lean"
    argv = ["probe", str(tiny_llm_dir), *data(manifest), "-o", str(folder), "--no-vectors", "--no-self-test", "--json"]
    assert json.loads(run_main(argv))["conservation"] == {}
    assert not Snapshot.load(folder).rows
    assert "layer_01" in run_main(["show", str(folder)])
    with pytest.raises(ValueError, match="no row and column sums of 'taylor'"):
        main(["show", str(folder), "--structure"])


def test_plain_text_is_cut_where_it_is_said(tiny_llm_dir: Path, tmp_path: Path, run_main: Run) -> None:
    (tmp_path / "a.txt").write_text(
        "The capital of France is Paris and of Peru is Lima.\n\nA user asks the assistant twice.\n"
    )
    found = {}
    for name, words in {"whole": [], "cut": ["--tokens", "6"]}.items():
        options = ["--data", str(tmp_path / "a.txt"), "--examples", "2", "--device", "cpu", *words]
        run_main(["probe", str(tiny_llm_dir), *options, "-o", str(tmp_path / name)])
        found[name] = Snapshot.load(tmp_path / name).meta["probe"]["tokens"]
    assert found["cut"] == 2 * 5  # the first token of a passage is not predicted
    assert found["whole"] > found["cut"]


def test_a_score_from_a_file_of_ones_own(
    tiny_llm_dir: Path, tuned_dir: Path, manifest: Path, tmp_path: Path, run_main: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "steep_scores.py").write_text(
        "from textkeep.importance import Spec, register\n"
        "class Steep:\n"
        "    def totals(self, gradient, magnitude): return gradient.abs().flatten(1).sum(1)\n"
        "    def add(self, gradient, sums): sums += gradient.abs().sum(0)\n"
        "    def finish(self, sums, magnitude): return sums\n"
        "register('steep', Spec('E_i |g_i|', block=Steep()))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    folders = [str(tmp_path / "before"), str(tmp_path / "after")]
    with mock.patch.dict(registry._registered), mock.patch.dict(sys.modules):
        for model, folder in zip((tiny_llm_dir, tuned_dir), folders, strict=True):
            argv = ["probe", str(model), *data(manifest), "-o", folder, "--estimators", "taylor,steep_scores:steep"]
            run_main([*argv, "--maps"])
    assert set(Snapshot.load(folders[0]).maps) == {"taylor", "steep"}  # and nothing below knows of the file
    shift = json.loads(run_main(["compare", *folders, "--estimator", "steep", "--json"]))[0]
    assert shift["metrics"]["js"]["value"] > 0
    assert json.loads(run_main(["show", folders[1], "--estimator", "steep", "--json"]))["estimator"] == "steep"


def test_probe_compare_show(tiny_llm_dir: Path, tuned_dir: Path, manifest: Path, tmp_path: Path, run_main: Run) -> None:
    folders = [tmp_path / "before", tmp_path / "after"]
    for model, folder in zip((tiny_llm_dir, tuned_dir), folders, strict=True):
        maps = ("--top-fraction", "0.05", "--maps", "--maps-on-cpu")
        argv = ["probe", str(model), *data(manifest), "-o", str(folder), *maps]
        assert json.loads(run_main([*argv, "--json"]))["coverage"] > 0.99
    assert "layer_01" in run_main([*argv, "--overwrite"])
    snapshot = Snapshot.load(folders[0])
    assert len(snapshot.losses) == 5
    assert snapshot.meta["name"] == "facts"
    assert set(snapshot.maps) == {"taylor", "fisher"}
    pair = [str(folder) for folder in folders]
    argv = ["compare", *pair, "--estimator", "taylor", "--json", "--plot", str(tmp_path / "c.png")]
    shift = json.loads(run_main([*argv, "-o", str(tmp_path / "c.json")]))[0]
    again = compare(*(Snapshot.load(f) for f in folders), "taylor", 1000)
    assert shift["metrics"]["js"]["value"] == pytest.approx(again.metrics["js"].value)
    shares = [np.array(list(Snapshot.load(f).shares("taylor").values())) for f in folders]
    assert shift["metrics"]["js"]["value"] == pytest.approx(jensen_shannon(*shares), rel=1e-6)
    assert 0 < shift["top_overlap"] <= 1
    assert json.loads((tmp_path / "c.json").read_text()) == [shift]
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    table = run_main(["compare", *pair])
    assert "half against half" in table
    assert shift["p_floor"] == 1 / 16  # five examples: all ways to exchange before and after
    assert "paired p: before and after exchanged within the 5 examples, floor 0.062;" in table
    assert "total x" in table  # beside the shares, always
    shown = json.loads(run_main(["show", pair[0], "--group", "kind", "--json", "--estimator", "fisher"]))
    assert sum(shown["shares"].values()) == pytest.approx(1.0)
    assert json.loads(run_main(["show", pair[0], "--structure", "--json"]))[0]["stable_rank"] >= 1
    assert "structure of taylor" in run_main(["show", pair[0], "--structure"])  # the first that was measured


def jensen_shannon(p: np.ndarray, q: np.ndarray) -> float:
    """Gives the distance, base 2, by its definition."""
    m = (p + q) / 2
    return float(np.sqrt(0.5 * (p * np.log2(p / m)).sum() + 0.5 * (q * np.log2(q / m)).sum()))


def mean_loss(model: Path, manifest: Path, count: int, skip: int = 0) -> float:
    """Gives the loss on the examples that a command chooses."""
    return float(load(model, "cpu").losses(read_examples(str(manifest), count=count, skip=skip)).mean())


def test_ablation_beside_taylor(
    tiny_llm_dir: Path, tuned_dir: Path, manifest: Path, tmp_path: Path, run_main: Run
) -> None:
    folders = [str(tmp_path / "before"), str(tmp_path / "after")]
    for model, folder in zip((tiny_llm_dir, tuned_dir), folders, strict=True):
        argv = ["probe", str(model), *data(manifest), "-o", folder, "--estimators", "taylor,ablation"]
        run_main([*argv, "--ablate", "matrix", "--ablate-with", "mean"])
    shown = run_main(["show", folders[0], "--estimator", "ablation", "--plot", str(tmp_path / "s.png")])
    assert "each matrix removed in turn (mean in its place)" in shown
    assert "of 14 the loss does not rise" in shown
    assert "rank correlation with ablation over the layers:" in run_main(["show", folders[0]])
    effects = json.loads(run_main(["show", folders[0], "--estimator", "ablation", "--json"]))["effects"]
    assert effects.keys() == {matrix.name for matrix in Snapshot.load(folders[0]).table}
    table = run_main(["compare", *folders, "--plot", str(tmp_path / "c.png")])
    assert "ablation: 5 examples" in table
    assert "rank correlation over the layers with ablation: the real effect of removal" in table
    taylor, ablation = json.loads(run_main(["compare", *folders, "--json"]))
    assert {"now", "moved"} <= taylor["causal"].keys()
    assert "causal" not in ablation
    assert ablation["metrics"]["js"]["p"] is not None


def test_verify_holds_an_ablation_against_other_examples(
    tiny_llm_dir: Path, manifest: Path, tmp_path: Path, run_main: Run
) -> None:
    argv = ["verify", str(tiny_llm_dir), *data(manifest), "--groups", "6", "--shrink", "1", "--json"]
    found = json.loads(run_main([*argv, "--estimators", "ablation,taylor"]))
    assert [r["score"] for r in found["results"]] == ["ablation", "taylor", "magnitude", "random"]
    assert found["reliability"].keys() == {"ablation", "taylor"}
    model = load(str(tiny_llm_dir), "cpu")
    batches = list(model.inputs(read_examples(str(manifest), "text", 5, seed=0), "text", 2))
    whole = probe(model.llm, batches, "ablation", ablate="matrix")
    effects = {g.name: abs(v) for g, v in zip(whole.groups["ablation"], whole.effects("ablation"), strict=True)}
    assert found["scores"]["ablation"] == pytest.approx([effects[name] for name in found["groups"]], abs=1e-6)


def test_show_structure_and_pictures(tiny_llm_dir: Path, manifest: Path, tmp_path: Path, run_main: Run) -> None:
    folder = str(tmp_path / "s")
    run_main(["probe", str(tiny_llm_dir), *data(manifest), "-o", folder, "--top-fraction", "0.05"])
    for name, extra in {"shares": [], "structure": ["--structure"], "matrix": ["--matrix", "layers.1.mlp.up"]}.items():
        picture = tmp_path / f"{name}.png"
        out = run_main(["show", folder, *extra, "--json", "--plot", str(picture)])
        assert json.loads(out)  # the picture is announced elsewhere
        assert picture.read_bytes().startswith(b"\x89PNG")
    assert len({path.read_bytes() for path in tmp_path.glob("*.png")}) == 3


def test_removal(tiny_llm_dir: Path, manifest: Path, tmp_path: Path, run_main: Run) -> None:
    argv = ["removal", str(tiny_llm_dir), *data(manifest), "--evaluate-examples", "3"]
    argv += ["-o", str(tmp_path / "r.json"), "--plot", str(tmp_path / "r.png")]
    assert "facts, text: top > random > bottom" in run_main(argv)
    shown = json.loads(run_main([*argv, "--json", "--overwrite"]))
    stored = json.loads((tmp_path / "r.json").read_text())
    assert {**stored, "made": ""} == {**shown, "made": ""}
    assert [row["removed"] for row in stored["rows"]] == ["none", "top", "random", "bottom"]
    untouched = mean_loss(tiny_llm_dir, manifest, 3, skip=5)
    assert stored["rows"][0]["loss"] == pytest.approx(untouched, rel=1e-5)
    assert stored["rows"][0]["perplexity"] == pytest.approx(math.exp(untouched), rel=1e-4)
    for row in stored["rows"]:
        assert row["increase"] == pytest.approx(row["loss"] - stored["rows"][0]["loss"], abs=1e-6)
    assert stored["arguments"]["evaluate_examples"] == 3
    assert "torch" in stored["versions"]
    assert (tmp_path / "r.png").exists()


def test_verify(tiny_llm_dir: Path, manifest: Path, tmp_path: Path, run_main: Run) -> None:
    argv = ["verify", str(tiny_llm_dir), *data(manifest), "--groups", "6", "--shrink", "1"]
    argv += ["--plot", str(tmp_path / "v.png")]
    found = json.loads(run_main([*argv, "--json"]))
    assert [r["score"] for r in found["results"]] == ["taylor", "fisher", "signed_taylor", "magnitude", "random"]
    assert found["step"] is None  # not a run
    assert found["loss"] == pytest.approx(mean_loss(tiny_llm_dir, manifest, 5, skip=5), rel=1e-5)
    assert found["arguments"]["shrink"] == [1.0]
    assert {r["shrink"] for r in found["results"]} == {1.0}
    assert all(-1 <= r["low"] <= r["spearman"] <= r["high"] <= 1 for r in found["results"] if r["score"] != "random")
    assert not list(tmp_path.glob("**/verification"))
    assert "random: mean over 1000 random scores" in run_main([*argv, "--granularity", "head", "--overwrite"])
    assert (tmp_path / "v.png").exists()


def test_layers_are_verified_on_plain_text_cut_at_tokens(tiny_llm_dir: Path, run_main: Run) -> None:
    argv = ["verify", str(tiny_llm_dir), "--data", "plain-text/probe", "--granularity", "layer", "--shrink", "1"]
    argv += ["--examples", "3", "--batch-size", "3"]
    found = [json.loads(run_main([*argv, "--tokens", tokens, "--json"])) for tokens in ("6", "9")]
    subject = load(tiny_llm_dir, "cpu")
    chosen = read_examples("plain-text/probe", "text", 3, skip=3)
    for record, tokens in zip(found, (6, 9), strict=True):
        (batch,) = subject.inputs(chosen, "text", 3, tokens)
        assert batch["labels"].shape[1] == tokens
        assert record["loss"] == pytest.approx(float(answer_losses(subject.llm, [batch])[0].mean()), rel=1e-5)
        assert record["groups"] == [f"layer_{i:02d}" for i in range(len(record["groups"]))]


def test_the_examples_evaluated_are_never_those_scored(
    tiny_llm_dir: Path, manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from textkeep.cli.importance.examples import evaluation_batches, read_batches
    from textkeep.cli.importance.verifying import _parser

    subject = load(tiny_llm_dir, "cpu")
    for extra in ([], ["--evaluate", str(manifest)]):
        arguments = _parser().parse_args([str(tiny_llm_dir), *data(manifest), *extra, "--evaluate-examples", "7"])
        batches = read_batches(subject, arguments), evaluation_batches(subject, arguments, arguments.evaluate)
        scored, evaluated = ({i for batch in part for i in batch["ids"]} for part in batches)
        assert (len(scored), len(evaluated)) == (5, 7)
        assert not scored & evaluated


def test_attribute(tiny_llm_dir: Path, tuned_dir: Path, manifest: Path, tmp_path: Path, run_main: Run) -> None:
    argv = ["attribute", str(tiny_llm_dir), str(tuned_dir), *data(manifest), "--plot", str(tmp_path / "a.png")]
    table = run_main(argv)
    assert "completeness error" in table
    found = json.loads(run_main([*argv, "--json", "-o", str(tmp_path / "a.json"), "--overwrite"]))
    assert found["loss_before"] == pytest.approx(mean_loss(tiny_llm_dir, manifest, 5), rel=1e-5)
    assert found["loss_after"] == pytest.approx(mean_loss(tuned_dir, manifest, 5), rel=1e-5)
    change = found["loss_after"] - found["loss_before"]
    assert sum(found["parameters"].values()) == pytest.approx(change, rel=0.05)
    assert set(found["parameters"]) == {f"model.layers.1.mlp.{k}_proj.weight" for k in ("gate", "up", "down")}
    assert (tmp_path / "a.png").exists()
    assert json.loads((tmp_path / "a.json").read_text())["parameters"] == found["parameters"]
    culprits = blamed(found["parameters"])
    assert f"{len(culprits)} of 3 parameters to blame: they made the loss worse" in table
    assert f"{3 - len(culprits)} of 3 parameters made the loss better" in table
    checked = [revert["names"][0] for revert in found["reverts"] if revert["what"] == "matrix"]
    assert checked == culprits  # what the check puts back is what --revert puts back
    if culprits:
        assert read_culprits(tmp_path / "a.json", len(culprits), "export") == culprits
    else:
        with pytest.raises(UserError, match="none is to blame"):
            read_culprits(tmp_path / "a.json", 1, "export")


def test_overlap(tiny_llm_dir: Path, tuned_dir: Path, manifest: Path, tmp_path: Path, run_main: Run) -> None:
    folder = str(tmp_path / "s")
    run_main(["probe", str(tiny_llm_dir), *data(manifest), "-o", folder, "--top-fraction", "0.05"])
    argv = ["overlap", folder, str(tiny_llm_dir), str(tuned_dir), "--device", "cpu", "--shuffles", "100"]
    assert "beyond chance: matrices" in run_main([*argv, "--plot", str(tmp_path / "o.png")])
    found = json.loads(run_main([*argv, "--json", "-o", str(tmp_path / "o.json")]))
    assert [m["name"].split(".")[-2] for m in found["matrices"]] == ["gate_proj", "up_proj", "down_proj"]
    assert found["matrices"][0]["rows"]["random_median"] is None
    snapshot = Snapshot.load(tmp_path / "s")
    weights = [dict(load(folder, "cpu").llm.named_parameters()) for folder in (tiny_llm_dir, tuned_dir)]
    for matrix in found["matrices"]:
        number = [entry.name for entry in snapshot.table].index(matrix["name"])
        moved = (weights[1][matrix["name"]] - weights[0][matrix["name"]]).detach().abs().double()
        for key, axis, sums in (("rows", 1, snapshot.rows), ("columns", 0, snapshot.columns)):
            ranks = [np.argsort(np.argsort(values)) for values in (sums["taylor"][number], moved.sum(axis).numpy())]
            assert matrix[key]["spearman"] == pytest.approx(np.corrcoef(*ranks)[0, 1], abs=1e-6)
    assert (tmp_path / "o.png").exists()
    assert (tmp_path / "o.json").exists()


@pytest.fixture(scope="module")
def lora_run(tiny_settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory of ``textkeep fit`` with LoRA."""
    return lora_fit(tmp_path_factory.mktemp("lora"), tiny_settings, {})


def lora_fit(folder: Path, settings: dict[str, Any], options: dict[str, Any]) -> Path:
    """Trains LoRA of rank 2 on queries and ups for three steps at a high rate."""
    trainer = {**settings["trainer"], "default_root_dir": str(folder / "run"), "logger": False}
    tuning = {"class_path": "LoRA", "init_args": {"r": 2, "targets": ["q_proj", "up_proj"], **options}}
    rate = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.05}}
    model = {**settings["model"], "optimizer": rate, "tuning": tuning}
    (folder / "run.yaml").write_text(yaml.safe_dump({**settings, "trainer": trainer, "model": model}))
    assert textkeep_main(["fit", "--config", str(folder / "run.yaml")]) == 0
    return folder / "run"


def test_a_lora_run_is_merged_and_its_adapters_are_found(
    tiny_llm_dir: Path, lora_run: Path, manifest: Path, tmp_path: Path, run_main: Run
) -> None:
    pair = [str(tiny_llm_dir), str(lora_run)]
    found = json.loads(run_main(["attribute", *pair, *data(manifest), "--json"]))
    moved = {f"model.layers.{i}.{k}_proj.weight" for i in (0, 1) for k in ("self_attn.q", "mlp.up")}
    assert set(found["parameters"]) == moved
    assert abs(found["completeness_error"]) < 0.05
    folder = str(tmp_path / "s")
    run_main(["probe", str(tiny_llm_dir), *data(manifest), "-o", folder, "--top-fraction", "0.05"])
    argv = ["overlap", folder, *pair, "--device", "cpu", "--shuffles", "50", "--draws", "5"]
    assert "random adapters of the same rank" in run_main(argv)
    overlap = json.loads(run_main([*argv, "--json"]))
    assert {m["name"] for m in overlap["matrices"]} == moved
    assert all(m["rows"]["random_percentile"] is not None for m in overlap["matrices"])
    run_main(["probe", str(lora_run), *data(manifest), "-o", str(tmp_path / "t")])
    assert "js" in run_main(["compare", folder, str(tmp_path / "t"), "--estimator", "taylor"])


def test_merging_leaves_the_answers_as_they_were(tiny_llm_dir: Path, lora_run: Path) -> None:
    model = load(lora_run, "cpu")
    llm = model.llm
    ids = torch.arange(20)[None]
    with torch.no_grad():
        before = llm(input_ids=ids).logits
        after = merge(model)(input_ids=ids).logits
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)
    plain = load(tiny_llm_dir, "cpu").llm
    assert [n for n, _ in llm.named_parameters()] == [n for n, _ in plain.named_parameters()]


def test_a_run_keeps_its_verification(lora_run: Path, manifest: Path, tmp_path: Path, run_main: Run) -> None:
    argv = ["verify", str(lora_run), *data(manifest), "--groups", "6", "--shrink", "1"]
    run_main(argv)
    kept = lora_run / "importance" / "verification" / "facts_text_matrix.json"
    assert json.loads(kept.read_text())["step"] == 3
    run_main(argv)  # the same again is no loss
    with pytest.raises(UserError, match=r"facts_text_matrix\.json exists; allowed: a new name, or --overwrite"):
        main([*argv, "--seed", "1"])
    run_main([*argv, "--seed", "1", "--overwrite"])
    kept.unlink()
    run_main([*argv, "-o", str(tmp_path / "elsewhere.json")])
    assert not kept.exists()
    assert [p.name for p in tmp_path.glob("elsewhere*")] == ["elsewhere.json"]


def test_progress_is_silent_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    from textkeep.cli.output import progress_bars

    with progress_bars() as progress:
        progress("scoring", 0, 2)
        progress("scoring", 2, 2)
    found = capsys.readouterr()
    assert (found.out, found.err.strip()) == ("", "")


def test_a_picture_that_cannot_be_drawn_is_refused_before_measuring(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["verify", "nowhere", "--data", "x", "--plot", "out.docx"])
    assert caught.value.code == 2
    assert "must end in .png, .pdf, .svg, got 'out.docx'" in capsys.readouterr().err


def test_a_full_device_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from textkeep.cli.importance import comparing

    def full(argv: list[str]) -> int:
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 20 GiB")

    monkeypatch.setattr(comparing, "main", full)
    with pytest.raises(UserError, match="out of memory; try a smaller --batch-size, --dtype bfloat16"):
        main(["compare", "a", "b"])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["prob"], "no command 'prob'; allowed: probe"),
        (["probe", "nowhere/none", "--data", "x.jsonl", "-o", "out", "--device", "cpu"], "cannot be loaded"),
        (["probe", "{llm}", "--data", "{data}", "--modality", "speech", "-o", "out"], "cannot listen"),
        (["probe", "{llm}", "--data", "{data}", "--estimators", "tailor", "-o", "out"], "unknown estimator tailor"),
        (["probe", "{llm}", "--data", "{data}", "-o", "{llm}"], "is not a snapshot"),
        (["removal", "{llm}", "--data", "{data}", "--examples", "12"], "has only 12 examples"),
        (["removal", "{llm}", "--data", "{data}", "--examples", "2", "--fraction", "2"], "fraction=2.0 must lie in"),
        (["show", "{llm}"], "no snapshot"),
        (["overlap", "{llm}", "{llm}", "{llm}"], "no snapshot"),
        (["attribute", "{llm}", "{llm}", "--data", "{data}", "--examples", "2"], "base and tuned model are equal"),
        (["probe", "{llm}", "--data", "{data}", "-o", "out", "--device", "warp9"], "device warp9"),
    ],
)
def test_refusals_are_one_line(
    argv: list[str], message: str, tiny_llm_dir: Path, manifest: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [word.format(llm=tiny_llm_dir, data=manifest) for word in argv]
    with pytest.raises((UserError, ValueError, OSError), match=message) as caught:
        main(words)
    assert "\n" not in str(caught.value).strip()
