import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from metaray.data.remote import held, local_path
from metaray.errors import InputError
from tests.data.conftest import MakeStore
from tests.data.small_server import SmallServer, small_server, without_proxies
from tests.patience import PATIENT_S, wait_until

FETCH = "import sys; from metaray.data.remote import local_path; print(local_path(sys.argv[1]))"


Start = Callable[[str], subprocess.Popen[str]]


@pytest.fixture
def stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache's folder of stores, not made yet."""
    monkeypatch.setenv("METARAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("METARAY_CACHE_GB", raising=False)
    return tmp_path / "cache" / "stores"


@pytest.fixture
def content(tiny_store: Path) -> bytes:
    return tiny_store.read_bytes()


@pytest.fixture
def server(stores: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallServer]:
    with small_server() as served:
        without_proxies(monkeypatch, served)
        served.objects |= {f"/{name}": content for name in "abc"}
        yield served


@pytest.fixture
def start() -> Iterator[Start]:
    running: list[subprocess.Popen[str]] = []

    def make(uri: str) -> subprocess.Popen[str]:
        process = subprocess.Popen([sys.executable, "-c", FETCH, uri], stdout=subprocess.PIPE, text=True)
        running.append(process)
        return process

    yield make
    for process in running:
        process.kill()
        process.communicate()


def kept(stores: Path) -> set[str]:
    return {path.suffix for path in stores.iterdir()} - {".lock"}


def notes(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.with_suffix(".json").read_text()))


def age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path.with_suffix(".lock") if path.with_suffix(".lock").exists() else path, (then, then))


def limit(monkeypatch: pytest.MonkeyPatch, size_bytes: float) -> None:
    monkeypatch.setenv("METARAY_CACHE_GB", str(size_bytes / 1e9))


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("some/store.arrow", "some/store.arrow"),
        ("file:///some%20where/store.arrow", "/some where/store.arrow"),
        ("FILE://localhost/store.arrow", "/store.arrow"),
    ],
)
def test_a_local_path_is_not_cached(uri: str, path: str, stores: Path) -> None:
    assert local_path(uri) == Path(path)
    assert not stores.exists()


def test_a_file_uri_names_no_host() -> None:
    with pytest.raises(InputError, match="file://data/store: a file:// URI names no host: file:///data/store is"):
        local_path("file://data/store")


def test_unknown_schemes_name_the_nearest() -> None:
    with pytest.raises(InputError, match=r"unknown scheme of 's4://me:\*\*\*@b/k' 's4'. Did you mean 's3'"):
        local_path("s4://me:secret@b/k")


def test_it_is_fetched_once(server: SmallServer, stores: Path, content: bytes) -> None:
    first, again = (local_path(f"{server.address}/a") for _ in range(2))
    assert first == again and first.parent == stores and first.read_bytes() == content
    assert server.count("GET") == 1
    assert stores.stat().st_mode & 0o777 == 0o700
    told = notes(first)
    assert told.pop("fetched").startswith("20")
    assert told == {"uri": f"{server.address}/a", "size_bytes": len(content), "fetches": 1}
    assert kept(stores) == {".arrow", ".json"}


def test_by_default_it_lies_in_the_users_cache(
    server: SmallServer, stores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("METARAY_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert local_path(f"{server.address}/a").parent == tmp_path / "xdg" / "metaray" / "stores"


def test_from_s3(server: SmallServer, content: bytes, stores: Path) -> None:
    server.objects["/bucket/store.arrow"] = content
    first, again = (local_path("s3://bucket/store.arrow") for _ in range(2))
    assert first == again and first.read_bytes() == content and notes(first)["fetches"] == 1


def test_of_four_processes_one_fetches(server: SmallServer, start: Start) -> None:
    def wait_for_all() -> None:
        # All have asked about the object, so all want the lock; a moment for one that wouldn't.
        wait_until(lambda: server.count("HEAD") == 4)
        time.sleep(0.5)

    server.before_body = wait_for_all
    processes = [start(f"{server.address}/a") for _ in range(4)]
    printed = {process.communicate(timeout=PATIENT_S)[0] for process in processes}
    assert [process.returncode for process in processes] == [0] * 4 and len(printed) == 1
    assert server.count("GET") == 1
    assert notes(Path(printed.pop().strip()))["fetches"] == 1


def test_a_waiting_process_takes_over_from_a_killed_one(
    server: SmallServer, start: Start, stores: Path, content: bytes
) -> None:
    release = threading.Event()
    server.within_body = lambda: release.wait(PATIENT_S)
    killed = start(f"{server.address}/a")
    wait_until(lambda: server.count("GET") == 1 and list(stores.glob("*.part")))
    waiting = start(f"{server.address}/a")
    wait_until(lambda: server.count("HEAD") == 2)
    server.within_body = lambda: None
    assert waiting.poll() is None
    killed.kill()
    release.set()
    path = Path(waiting.communicate(timeout=PATIENT_S)[0].strip())
    assert path.read_bytes() == content and notes(path)["fetches"] == 1
    assert server.count("GET") == 2 and kept(stores) == {".arrow", ".json"}


def test_leftovers_of_other_objects_are_swept_if_nobody_writes_them(server: SmallServer, stores: Path) -> None:
    stores.mkdir(parents=True)
    left, written = stores / "left.part", stores / "written.part"
    left.write_bytes(b"half")
    written.write_bytes(b"half")
    with written.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        local_path(f"{server.address}/a")
    assert not left.exists() and written.exists()


def test_a_replaced_object_is_fetched_anew(server: SmallServer, make_store: MakeStore, content: bytes) -> None:
    uri = f"{server.address}/a"
    old = local_path(uri)
    server.objects["/a"] = make_store([3, 3], {"meta-train": [0, 1]}).read_bytes()
    new = local_path(uri)
    assert new != old and new.read_bytes() == server.objects["/a"] and old.read_bytes() == content
    assert server.count("GET") == 2


def test_a_damaged_entry_is_fetched_again(server: SmallServer, content: bytes) -> None:
    uri = f"{server.address}/a"
    path = local_path(uri)
    path.write_bytes(content[:100])
    assert local_path(uri) == path and path.read_bytes() == content and notes(path)["fetches"] == 2


def test_notes_that_a_power_cut_emptied(server: SmallServer) -> None:
    path = local_path(f"{server.address}/a")
    path.unlink()
    path.with_suffix(".json").write_text("")
    assert notes(local_path(f"{server.address}/a"))["fetches"] == 1


def test_after_a_cut_off_download_nothing_is_left(server: SmallServer, stores: Path, content: bytes) -> None:
    server.cut = len(content) // 2
    with pytest.raises(InputError, match=f"/a: cut off: expected {len(content)} bytes, got {len(content) // 2}"):
        local_path(f"{server.address}/a")
    assert kept(stores) == set()
    server.cut = None
    assert local_path(f"{server.address}/a").read_bytes() == content


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize(
    ("spoil", "what"), [(lambda _: b"<html>", "not a class store"), (flipped, "damaged: its exam")]
)
def test_only_a_whole_store_is_kept(
    server: SmallServer, stores: Path, content: bytes, spoil: Callable[[bytes], bytes], what: str
) -> None:
    server.objects["/a"] = spoil(content)
    size_bytes = len(server.objects["/a"])
    with pytest.raises(InputError, match=rf"/a: fetched whole \({size_bytes} bytes\), but {what}") as caught:
        local_path(f"{server.address}/a")
    assert str(stores) not in str(caught.value) and kept(stores) == set()


def test_what_is_larger_than_the_cache_is_not_fetched(
    server: SmallServer, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    limit(monkeypatch, 1000)
    with pytest.raises(
        InputError, match=rf"/a: {len(content)} bytes, but the cache may hold 1000 bytes: raise METARAY"
    ):
        local_path(f"{server.address}/a")
    assert server.count("GET") == 0


@pytest.mark.parametrize("given", ["much", "0", "-1", "nan", "inf"])
def test_a_limit_that_is_no_size(server: SmallServer, monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("METARAY_CACHE_GB", given)
    with pytest.raises(InputError, match=f"METARAY_CACHE_GB is the cache's size in GB, such as 50 .got '{given}'"):
        local_path(f"{server.address}/a")


def test_the_least_recently_used_is_swept(server: SmallServer, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    limit(monkeypatch, 2.5 * len(content))
    a, b = (local_path(f"{server.address}/{name}") for name in "ab")
    age(a, 200)
    age(b, 100)
    assert local_path(f"{server.address}/a") == a  # is a use
    c = local_path(f"{server.address}/c")
    assert a.exists() and not b.exists() and c.exists()


def test_what_is_held_or_foreign_is_not_swept(
    server: SmallServer, monkeypatch: pytest.MonkeyPatch, stores: Path, content: bytes
) -> None:
    limit(monkeypatch, 1.5 * len(content))
    with held(f"{server.address}/a") as a:
        mine = stores / "mine.arrow"
        mine.write_bytes(content)
        age(mine, 1000)
        age(a, 100)
        b = local_path(f"{server.address}/b")
        assert a.exists() and b.exists()
    age(b, 50)
    c = local_path(f"{server.address}/c")
    assert not a.exists() and not b.exists() and c.exists() and mine.exists()


def disk(monkeypatch: pytest.MonkeyPatch, stores: Path, size_bytes: float) -> None:
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(
        "metaray.data.remote.shutil.disk_usage",
        lambda _: usage(size_bytes - sum(path.stat().st_size for path in stores.glob("*.arrow"))),
    )


def test_a_full_disk(server: SmallServer, monkeypatch: pytest.MonkeyPatch, stores: Path, content: bytes) -> None:
    disk(monkeypatch, stores, 1000)
    with pytest.raises(
        InputError, match=rf"{len(content)} bytes, but the disk .* has 1000 bytes free: set METARAY_CAC"
    ):
        local_path(f"{server.address}/a")
    assert server.count("GET") == 0


def test_old_stores_make_room_on_a_full_disk(
    server: SmallServer, monkeypatch: pytest.MonkeyPatch, stores: Path, content: bytes
) -> None:
    disk(monkeypatch, stores, int(2.5 * len(content)))
    a, b = (local_path(f"{server.address}/{name}") for name in "ab")
    age(a, 200)
    c = local_path(f"{server.address}/c")
    assert not a.exists() and b.exists() and c.exists()


def test_a_cache_that_cannot_be_written(server: SmallServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("METARAY_CACHE", str(tmp_path / "file"))
    with pytest.raises(
        InputError, match=r"/a: can't be kept in the cache .*file/stores \(METARAY_CACHE\): .*Not a direc"
    ):
        local_path(f"{server.address}/a")


def test_credentials_are_not_part_of_an_entry(server: SmallServer, stores: Path) -> None:
    path = local_path(f"{server.address}/a")
    for account in ("me:hush", "hush"):
        assert local_path(f"{server.address}/a".replace("//", f"//{account}@")) == path
    assert server.count("GET") == 1
    path.unlink()
    local_path(f"{server.address}/a".replace("//", "//me:hush@"))
    assert "me:***@" in path.with_suffix(".json").read_text()
    assert not any(b"hush" in path.read_bytes() for path in stores.iterdir())


def test_an_entry_with_a_flipped_bit_is_fetched_again(server: SmallServer, content: bytes) -> None:
    uri = f"{server.address}/a"
    path = local_path(uri)
    path.write_bytes(flipped(content))
    assert local_path(uri) == path and path.read_bytes() == content and notes(path)["fetches"] == 2
