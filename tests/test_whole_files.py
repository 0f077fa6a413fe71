"""What the package writes appears whole or not at all: by ``foundation/files.py``, or stands here with a reason."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.support import private_names

WHOLE = {"replacing", "replacing_folder"}
WRITERS = {"write_text", "write_bytes", "save_file", "save_torch", "savefig", "savez", "copyfile", "copyfileobj"}
WRITERS |= {"copy", "copytree", "save_pretrained", "save_checkpoint", "tofile"}
"""Calls that write a file under the name that they are given, whoever's they are."""
OF_MODULES = {("soundfile", "write"), ("np", "save"), ("torch", "save"), ("shutil", "move")}
NOT_FILES = {("super", "save_checkpoint")}

INSIDE = "writes into a folder that its caller lets appear as a whole"
APPENDS = "appends lines; whoever reads leaves out one that is not whole"
LOCK = "an empty file to lock"
REASONS = {
    "callbacks/evaluations/prediction_writer.py:on_predict_start": "parts that are put together at the end",
    "callbacks/evaluations/prediction_writer.py:write_on_batch_end": "parts that are put together at the end",
    "callbacks/loggers/csv_logger.py:save": APPENDS,
    "callbacks/saving/checkpoint_io.py:_write": "writes to the file that its caller lets appear",
    "cli/training_verbs.py:_keep_traceback": "a traceback for people; what the disk takes of it is better than nothing",
    "cli/run_callback.py:_send": "a copy for W&B, in its own folder of this start",
    "foundation/shard_files.py:write_listing": INSIDE,
    "importance/storage.py:_write": INSIDE,
    "lightning_modules/ears/encoder_adaptor.py:save": INSIDE,
    "lightning_modules/ears/own_ear.py:save": INSIDE,
    "lightning_modules/saving/export_folder.py:_add_stops": INSIDE,
    "lightning_modules/saving/export_folder.py:_save_weights": INSIDE,
    "lightning_modules/saving/export_folder.py:_write_parts": INSIDE,
    "lightning_modules/sharding/sharded_saving.py:_write_rest": INSIDE,
    "preparation/rewriting/part_file.py:__init__": APPENDS,
    "preparation/speech/kokoro.py:_model": "in a temporary folder, for a library that reads nothing else",
    "preparation/speech/verify.py:add": APPENDS,
    "preparation/assets/install.py:_locked": LOCK,
    "preparation/assets/install.py:_write_origin": INSIDE,
    "runs/run_lock.py:_sign": "lines that only make a message clearer, in the file of filelock",
    "runs/study/child.py:_run": "the log of a process",
    "runs/report/clips.py:_as_ogg": "into memory",
    "runs/study/locking.py:exclusively": LOCK,
    "runs/study/sharing.py:alone": LOCK,
}
"""Function -> why it may write as it does. Builders of assets write into the folder that ``install`` renames."""


def writes() -> Iterator[tuple[str, str]]:
    """(file:function, what it calls) of each call that writes a file outside of a block that makes it whole."""
    for path, tree in private_names.files().items():
        yield from _in(tree, path, "", whole=False)


def _in(node: ast.AST, path: str, function: str, whole: bool) -> Iterator[tuple[str, str]]:
    for child in ast.iter_child_nodes(node):
        inner, inside = function, whole
        if isinstance(child, ast.FunctionDef):
            inner, inside = child.name, False
        elif isinstance(child, ast.With):
            inside = whole or any(_name(item.context_expr) in WHOLE for item in child.items)
        if isinstance(child, ast.Call) and not whole and (call := _writes(child)):
            yield f"{path}:{function}", call
        yield from _in(child, path, inner, inside)


def _name(node: ast.AST) -> str:
    called = node.func if isinstance(node, ast.Call) else node
    return called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""


def _writes(call: ast.Call) -> str:
    name = _name(call)
    owner = _name(call.func.value) if isinstance(call.func, ast.Attribute) else ""
    if name == "open" and owner != "tarfile":
        modes = [*call.args, *(k.value for k in call.keywords if k.arg == "mode")]
        texts = [mode.value for mode in modes if isinstance(mode, ast.Constant) and isinstance(mode.value, str)]
        return f"{owner}.open" if any(set(text) <= set("rwaxbt+") and set(text) & set("wax") for text in texts) else ""
    found = (owner, name) in OF_MODULES or (name in WRITERS and (owner, name) not in NOT_FILES)
    bare_copy = name in ("copy", "copytree") and owner != "shutil"
    return f"{owner}.{name}" if found and not bare_copy else ""


def test_each_file_appears_whole() -> None:
    found = {place for place, _ in writes() if not place.startswith("preparation/assets/") or "install" in place}
    assert found - set(REASONS) == set(), "use replacing() or replacing_folder(), or say above why not"
    assert set(REASONS) - found == set(), "listed, but it writes nothing any more"


CODE = """
def one(path, model):
    with replacing(path) as temporary, temporary.open("w") as file:
        file.write("whole")
    with replacing_folder(path) as folder:
        save_file({}, folder / "a")
    copy.copy(path), path.open("rb"), tarfile.open(path, "w")

def two(path, model):
    path.write_text(""); open(path, "w"); path.open(mode="ab"); torch.save({}, path); model.save_pretrained(path)
    with replacing(path):
        def three(path):
            soundfile.write(path, []); shutil.copy(path, path)
"""


def test_the_search_sees_each_way_to_write(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private_names, "files", lambda: {"a.py": ast.parse(CODE)})
    two = {".open", "path.open", "path.write_text", "torch.save", "model.save_pretrained"}
    assert {call for place, call in writes() if place == "a.py:two"} == two
    assert {call for place, call in writes() if place == "a.py:three"} == {"soundfile.write", "shutil.copy"}
    assert not [place for place, _ in writes() if place == "a.py:one"]
