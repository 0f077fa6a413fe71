"""``docs/strategies.md`` names every overlay and every public class that an overlay can choose."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
import yaml

from textkeep import lightning_modules
from textkeep.cli.main import main
from textkeep.lightning_modules import Objective, Penalty, Tuning

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "strategies.md").read_text(encoding="utf-8")
FOLDERS = ("tuning", "objectives", "hybrids", "callbacks")
OVERLAYS = [path for name in FOLDERS for path in sorted((ROOT / "configs" / name).glob("*"))]
CHOICES = [
    name
    for name in lightning_modules.__all__
    if inspect.isclass(found := getattr(lightning_modules, name))
    and issubclass(found, Tuning | Objective | Penalty)
    and not inspect.isabstract(found)
]


@pytest.mark.parametrize("path", OVERLAYS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_an_overlay_has_its_line(path: Path) -> None:
    assert re.search(rf"`{re.escape(path.name)}`", TEXT)


@pytest.mark.parametrize("name", CHOICES)
def test_a_class_has_its_line(name: str) -> None:
    assert f"`{name}`" in TEXT


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(\w+\.yaml)`", TEXT))))
def test_what_it_names_is_there(name: str) -> None:
    assert list((ROOT / "configs").rglob(name))


def test_the_budget_that_it_shows_is_accepted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (shown,) = re.findall(r"```yaml\n(.*?class_path: TextBudget.*?)```", TEXT, re.DOTALL)
    (tmp_path / "budget.yaml").write_text(shown)
    files = [ROOT / "configs/quickstart.yaml", ROOT / "configs/objectives/plain_text.yaml", tmp_path / "budget.yaml"]
    with pytest.raises(SystemExit) as end:
        main(["fit", *(word for file in files for word in ("--config", str(file))), "--print_config"])
    out, err = capsys.readouterr()
    assert end.value.code == 0, err
    budget = yaml.safe_load(out)["trainer"]["callbacks"][-1]
    assert budget["class_path"] == "textkeep.callbacks.TextBudget"
    assert [action["class_path"].rsplit(".", 1)[1] for action in budget["init_args"]["actions"]] == [
        "ControlWeight",
        "RollBack",
    ]
