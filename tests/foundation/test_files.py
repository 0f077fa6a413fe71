"""Files and folders that are written whole or not at all, by one function each."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from textkeep.foundation.files import replacing, replacing_folder

ROOT = Path(__file__).parents[2]
MAY_MOVE = {
    "preparation/assets/fetch.py": "the one file that a client left in a folder",
    "preparation/assets/install.py": "the finished part of a working folder",
    "runs/report/figures/files.py": "all figures, once the last is drawn",
    "preparation/speech/clips.py": "clips that were heard, to their places",
    "runs/study/archive.py": "the one folder of an archive",
}


def test_a_block_that_ends_well_replaces_the_file(tmp_path: Path) -> None:
    path = tmp_path / "new folder/a.json"
    for text in ("first", "second"):
        with replacing(path) as temporary:
            temporary.write_text(text)
            assert not path.exists() or path.read_text() == "first"
    assert path.read_text() == "second"
    assert list(path.parent.iterdir()) == [path]


def test_a_block_that_fails_leaves_what_was_there_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("kept")
    with pytest.raises(IsADirectoryError), replacing(path) as temporary:
        temporary.write_text("half") and tmp_path.open()
    assert path.read_text() == "kept"
    assert list(tmp_path.iterdir()) == [path]


def test_a_block_that_wrote_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "a.json"):
        pass


def test_a_folder_that_is_filled_replaces_the_one_before(tmp_path: Path) -> None:
    folder = tmp_path / "new/export"
    for name in ("first", "second"):
        with replacing_folder(folder) as temporary:
            (temporary / name).write_text(name)
            assert not folder.exists() or [entry.name for entry in folder.iterdir()] == ["first"]
    assert [entry.name for entry in folder.iterdir()] == ["second"]
    assert list(folder.parent.iterdir()) == [folder]


def test_a_folder_that_is_not_filled_leaves_what_was_there(tmp_path: Path) -> None:
    folder = tmp_path / "export"
    folder.mkdir()
    (folder / "kept").write_text("")
    with pytest.raises(IsADirectoryError), replacing_folder(folder) as temporary:
        (temporary / "half").write_text("half") and tmp_path.open()
    assert list(tmp_path.rglob("*")) == [folder, folder / "kept"]


def test_a_folder_that_cannot_be_moved_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, rename = tmp_path / "export", Path.rename
    folder.mkdir()
    (folder / "kept").write_text("")

    def failing(self: Path, target: Path) -> Path:
        if target == folder and (self / "new").exists():
            raise OSError("no")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="no"), replacing_folder(folder) as temporary:
        (temporary / "new").write_text("")
    assert list(tmp_path.rglob("*")) == [folder, folder / "kept"]


def test_of_a_link_the_folder_it_leads_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "disk/export").mkdir(parents=True)
    (tmp_path / "disk/export/old").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "disk/export")
    with replacing_folder(tmp_path / "link") as temporary:
        (temporary / "new").write_text("")
    assert (tmp_path / "link").is_symlink()
    assert [entry.name for entry in (tmp_path / "disk").rglob("*")] == ["export", "new"]


def test_nothing_else_writes_under_a_temporary_name() -> None:
    """A second way to do it would be a second rule for umask, leftovers and several writers."""
    found = set()
    for path in ROOT.rglob("*.py"):
        name = path.relative_to(ROOT)
        if name.parts[0] in {"tests", "foundation", "build"} or any(part.startswith(".") for part in name.parts):
            continue
        text = path.read_text(encoding="utf-8")
        calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
        moves = {"rename", "renames", "replace", "move"}
        for call in calls:
            if isinstance(call.func, ast.Attribute) and call.func.attr in moves:
                owner = ast.unparse(call.func.value)
                of_a_path = len(call.args) == 1 and not call.keywords and call.func.attr in {"rename", "replace"}
                if of_a_path or owner in {"os", "shutil"}:
                    found.add(str(name))
        if re.search(r"getpid\(\).*tmp|\+ \"\.tmp\"", text):
            found.add(str(name))
    assert found == set(MAY_MOVE)


def imported_rooms(path: Path) -> set[str]:
    """Rooms of this package, other than its own, that a file imports; type-only and late imports count."""
    here = path.relative_to(ROOT).parts
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            above = here[: len(here) - node.level] if node.level else ()
            whole = [*above, *(node.module or "").split(".")] if node.level else (node.module or "").split(".")[1:]
            ours = node.level > 0 or (node.module or "").split(".")[0] == "textkeep"
            if ours and (names := [part for part in whole if part]):
                found.add(names[0])
            elif ours:
                found |= {name.name for name in node.names}
        if isinstance(node, ast.Import):
            found |= {name.name.split(".")[1] for name in node.names if name.name.startswith("textkeep.")}
    return found - {here[0]}


@pytest.mark.parametrize(
    ("room", "allowed"),
    [("foundation", set()), ("importance", {"foundation"}), ("evaluation", {"foundation"})],
)
def test_the_lower_floors_use_the_foundation_alone(room: str, allowed: set[str]) -> None:
    for path in (ROOT / room).rglob("*.py"):
        assert imported_rooms(path) <= allowed, path
