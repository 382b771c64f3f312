"""Where runs keep their files."""

from pathlib import Path

import pytest

from metaray.errors import InputError
from metaray.training.storage import Storage


@pytest.fixture(params=["folder", "uri"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    root = str(tmp_path / "runs")
    return Storage(root if request.param == "folder" else f"file://{root}")


def test_write_read_replace(storage: Storage) -> None:
    assert storage.is_local and not storage.exists("a/b.txt") and storage.names("a") == []
    storage.write("a/b.txt", b"one")
    storage.write("a/b.txt", b"two")
    assert storage.read("a/b.txt") == b"two" and storage.exists("a/b.txt") and not storage.exists("a")
    assert storage.names("a") == ["b.txt"] and storage.names() == ["a"]
    storage.write("empty", b"")
    assert storage.read("empty") == b""


def test_what_is_not_there(storage: Storage) -> None:
    with pytest.raises(FileNotFoundError):
        storage.read("none")


def test_children_folders_and_downloads(storage: Storage, tmp_path: Path) -> None:
    child = storage.child("run")
    child.write_folder("learner", {"x": b"1", "y": b"2"})
    assert storage.names("run/learner") == ["x", "y"]
    to = child.download("learner", tmp_path / "copy")
    assert sorted(p.name for p in to.iterdir()) == ["x", "y"] and (to / "y").read_bytes() == b"2"
    child.delete_folder("learner")
    assert child.names("learner") == [] and storage.names() == ["run"]


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage(str(tmp_path))
    storage.write("file", b"old")

    def fails(fd: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", fails)
    with pytest.raises(OSError, match="disk full"):
        storage.write("file", b"new")
    assert storage.read("file") == b"old" and storage.names() == ["file"]


def test_writable(storage: Storage) -> None:
    storage.check_writable()
    assert storage.names() == []


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_unwritable(scheme: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file/below' is not writable"):
        Storage(f"{scheme}{tmp_path}/file/below").check_writable()


def test_an_unknown_scheme() -> None:
    with pytest.raises(InputError, match="storage 'nosuch://bucket/runs' cannot be opened"):
        Storage("nosuch://bucket/runs")


def test_relative_folders_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    storage = Storage("runs with spaces")
    assert storage.root == str(tmp_path / "runs with spaces")
    storage.write("a", b"1")
    monkeypatch.chdir("/")
    assert storage.read("a") == b"1" and Storage(storage.root).read("a") == b"1"


def test_options_of_a_uri_stay_at_its_end() -> None:
    assert Storage("s3://bucket/runs?region=eu-west-1").child("one").root == "s3://bucket/runs/one?region=eu-west-1"
