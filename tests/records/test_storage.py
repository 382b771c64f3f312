"""Where runs keep their files."""

import fcntl
import gzip
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from metaray.errors import InputError
from metaray.file_lock import lock
from metaray.records.storage import Storage

FULL = """
import resource, sys
from metaray.records.storage import Storage

storage = Storage(sys.argv[1])
with storage.locked("lock", "an earlier one"):
    pass
resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
with storage.locked("lock", "me"):
    print("held", flush=True)
    sys.stdin.readline()
"""


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


def test_a_name_does_not_change_bytes(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = gzip.compress(b"trace")
    for is_local in (True, False):  # object stores take bytes in another way
        monkeypatch.setattr(storage, "is_local", is_local)
        storage.write("trace.json.gz", packed)
        assert storage.read("trace.json.gz") == packed
        assert Path(storage._path("trace.json.gz")).read_bytes() == packed


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
    assert storage.delete_unfinished() == []


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
    root = Storage("s3://bucket/runs?region=eu-west-1")
    assert root.child("one").root == "s3://bucket/runs/one?region=eu-west-1" and root.child("one").parent == root


@pytest.mark.parametrize("root", ["/tmp/runs", "/", "file:///tmp/runs", "s3://bucket?region=eu-west-1"])
def test_a_child_knows_its_parent(root: str) -> None:
    assert Storage(root).child("mine").parent == Storage(root)


def test_a_second_holder_is_refused(storage: Storage, tmp_path: Path) -> None:
    with storage.locked("lock", "process 7 on here"):
        assert storage.read("lock") == b"process 7 on here"
        for other in (storage, Storage(str(tmp_path / "runs"))):
            with pytest.raises(InputError, match=r"runs is in use by process 7 on here"), other.locked("lock", "me"):
                raise AssertionError("two holders")
        assert storage.read("lock") == b"process 7 on here"
        with storage.locked("other", "process 8"):
            pass
    with storage.locked("lock", "me"):
        assert storage.read("lock") == b"me"


def test_the_lock_ends_with_its_block_however_that_ends(storage: Storage) -> None:
    with pytest.raises(ZeroDivisionError), storage.locked("lock", "first"):
        raise ZeroDivisionError
    with storage.locked("lock", "second"):
        pass


HOLDER = """
import sys, time
from metaray.records.storage import Storage

with Storage(sys.argv[1]).locked("lock", "the one that dies"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_lock_goes_with_its_process(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", HOLDER, storage.root], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(InputError, match="is in use by the one that dies"), storage.locked("lock", "me"):
            raise AssertionError("two holders")
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with storage.locked("lock", "me"):
        assert storage.read("lock") == b"me"


def test_a_full_disk_refuses_no_lock(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    with subprocess.Popen(
        [sys.executable, "-c", FULL, storage.root],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(InputError, match="is in use by another process"), storage.locked("lock", "me"):
            raise AssertionError("two holders")
        _, chatter = holder.communicate("\n")
    assert (holder.returncode, chatter) == (0, ""), "nor does the end of the block fail"


def test_a_folder_that_goes_while_it_is_listed_is_empty(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    class Goes:
        """A file system on which another process deletes the folder between two looks."""

        def get_file_info(self, selector: object) -> list[object]:
            raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(storage, "_fs", Goes())
    assert storage.names("metrics") == []


@pytest.mark.parametrize(
    "root", ["s3://KEY:SE/CRET@bucket/runs", "S3://KEY:SECRET@bucket", "s3://bucket/runs?secret_key=SECRET"]
)
def test_passwords_are_refused_and_not_shown(root: str) -> None:
    """Ray shows what workers are given."""
    with pytest.raises(
        InputError, match=r"\*\*\*.* holds a credential: .*AWS_SECRET_ACCESS_KEY.* of every node"
    ) as caught:
        Storage(root)
    assert "CRET" not in str(caught.value).replace("AWS_SECRET_ACCESS_KEY", "")


def test_options_stay_at_the_end_of_a_uri(tmp_path: Path) -> None:
    storage = Storage("s3://bucket/runs?region=eu-west-1")
    assert storage.child("x").shown == "s3://bucket/runs/x?region=eu-west-1"
    assert Storage(str(tmp_path)).shown == str(tmp_path)
    with pytest.raises(InputError, match=r"'nosuch://bucket' cannot be opened"):
        Storage("nosuch://bucket")


def test_object_stores_have_no_locks() -> None:
    storage = Storage("mock://runs")
    assert not storage.is_local and storage.delete_unfinished() == []
    with storage.locked("lock", "one"), storage.locked("lock", "two"):
        pass
    assert storage.names() == []


def test_unfinished_files_are_deleted(storage: Storage, tmp_path: Path) -> None:
    storage.write("a/whole.txt", b"1")
    storage.write("a/whole.tmp", b"2")
    for name in (".x.0123.tmp", "a/.y.4567.tmp", "a/b/.z.89ab.tmp"):
        path = tmp_path / "runs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    assert storage.delete_unfinished() == [".x.0123.tmp", "a/.y.4567.tmp", "a/b/.z.89ab.tmp"]
    assert storage.delete_unfinished() == []
    assert storage.names("a") == ["b", "whole.tmp", "whole.txt"] and storage.names("a/b") == []


WRITER = """
import sys
from metaray.records.storage import Storage

storage = Storage(sys.argv[1])
while True:
    storage.write("file", b"x" * 3_000_000)
    print("written", flush=True)
"""


def test_a_writer_that_is_killed_leaves_a_whole_file(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", WRITER, storage.root], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        for _ in range(3):
            assert writer.stdout.readline() == "written\n"
        time.sleep(0.001)
        writer.kill()
        writer.stdout.close()
    assert storage.read("file") == b"x" * 3_000_000
    assert len(storage.delete_unfinished()) <= 1 and storage.names() == ["file"]


def test_files_are_listed_however_deep(storage: Storage) -> None:
    for name, data in (("b", b"12"), ("a/c", b"1"), ("a/d/e", b"123")):
        storage.write(name, data)
    assert [(file.name, file.size_bytes) for file in storage.files()] == [("a/c", 1), ("a/d/e", 3), ("b", 2)]
    assert [file.name for file in storage.files("a/d")] == ["a/d/e"]
    assert all(abs(file.changed_s - time.time()) < 3600 for file in storage.files())
    assert storage.files("nowhere") == [] and storage.folders() == ["a"]
    assert storage.child("nowhere").files() == [] and storage.child("nowhere").folders() == []


def test_who_holds_it_is_told_without_taking_it(storage: Storage) -> None:
    assert storage.holder("lock") is None
    with storage.locked("lock", "process 7"):
        assert storage.holder("lock") == "process 7"
        with pytest.raises(InputError, match="is in use by process 7"), storage.locked("lock", "me"):
            pass
    assert storage.holder("lock") is None
    (storage.local_folder / "lock").write_text("")
    with (storage.local_folder / "lock").open("a") as file:
        assert lock(file)
        assert storage.holder("lock") == "another process"


def test_who_only_looks_keeps_nobody_from_starting(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    with storage.locked("lock", "before"):
        pass
    with (storage.local_folder / "lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        monkeypatch.setattr(time, "sleep", lambda _: fcntl.flock(file, fcntl.LOCK_UN))
        with storage.locked("lock", "me"):
            assert storage.holder("lock") == "me"
