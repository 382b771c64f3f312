"""The cache of weights: one download however many ask, and what is swept, which is never in use."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from metaray.data.weight_cache import part_of, sweep
from metaray.data.weights import held_weights
from metaray.errors import InputError
from tests.data.small_server import SmallServer, small_server, without_proxies

ASK = "from metaray.data.weights import held_weights; print(held_weights(sys.argv[1]).path, flush=True)"
USE = (
    "from pathlib import Path; from metaray.data.weight_cache import used; "
    "print(used(Path(sys.argv[1]), sys.argv[2]), flush=True)"
)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("METARAY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "weights"


@pytest.fixture
def server(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallServer]:
    with small_server() as served:
        without_proxies(monkeypatch, served)
        yield served


def some_file(folder: Path, number: int) -> Path:
    path = folder / f"{number}.safetensors"
    save_file({"w": torch.full((1000,), float(number))}, path)
    return path


def process(code: str, *arguments: object) -> "subprocess.Popen[str]":
    """A process that says something, and lives until its input is closed."""
    words = [sys.executable, "-c", f"import sys; {code}; sys.stdin.read()", *map(str, arguments)]
    return subprocess.Popen(words, stdin=-1, stdout=-1, stderr=-1, text=True)


def answered(one: "subprocess.Popen[str]") -> str:
    assert one.stdout is not None
    return one.stdout.readline().strip()


def ended(one: "subprocess.Popen[str]") -> None:
    _, told = one.communicate("")
    assert one.returncode == 0, told


def test_whoever_comes_second_waits(server: SmallServer, cache: Path, tmp_path: Path) -> None:
    server.objects["/w.safetensors"] = some_file(tmp_path, 1).read_bytes()
    server.within_body = lambda: time.sleep(0.2)
    with ThreadPoolExecutor(3) as pool:
        found = set(pool.map(held_weights, [f"{server.address}/w.safetensors"] * 3))
    assert len(found) == 1 and server.count("GET") == 1 and not list(cache.glob("*.part"))


@pytest.mark.slow
def test_two_processes_make_one_download(server: SmallServer, cache: Path, tmp_path: Path) -> None:
    server.objects["/w.safetensors"] = some_file(tmp_path, 1).read_bytes()
    server.within_body = lambda: time.sleep(2)  # by then the other one asks, too
    processes = [process(ASK, f"{server.address}/w.safetensors") for _ in range(2)]
    first, second = map(answered, processes)
    for one in processes:
        ended(one)
    assert first == second and Path(first).is_file() and server.count("GET") == 1
    assert held_weights(f"{server.address}/w.safetensors").path == Path(first) and server.count("GET") == 1
    server.objects["/w.safetensors"] = some_file(tmp_path, 2).read_bytes()
    assert held_weights(f"{server.address}/w.safetensors").path != Path(first) and server.count("GET") == 2


def test_what_is_swept(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The least recently used first, but nothing that a process uses, and no part that one works on."""
    files = [some_file(tmp_path, number) for number in range(4)]
    kept = [cache / f"{sha256(file.read_bytes()).hexdigest()}.safetensors" for file in files]
    cache.mkdir(parents=True)
    for place, path in enumerate(kept[:3]):
        shutil.copy(files[place], path)
        path.with_suffix(".use").touch()
        os.utime(path.with_suffix(".use"), (1000 + place, 1000 + place))
    user = process(USE, cache, kept[0].stem)
    assert answered(user) == str(kept[0])
    os.utime(kept[0].with_suffix(".use"), (1000, 1000))
    (cache / "left.part").touch()
    size = kept[0].stat().st_size
    with part_of(cache) as part:
        monkeypatch.setenv("METARAY_CACHE_GB", str(2.5 * size / 1e9))
        assert held_weights(str(files[3])).path == kept[3]
        assert [path.is_file() for path in kept] == [True, False, False, True], "the first is in use, the last is new"
        assert Path(part.name).exists() and not (cache / "left.part").exists()
    assert not Path(part.name).exists()
    ended(user)
    sweep(cache, 0)
    assert [path.is_file() for path in kept] == [False, False, False, True], "this process uses the last"
    assert held_weights(str(files[0])).path == kept[0], "swept, and made again"


def test_damaged_weights_are_made_anew(cache: Path, tmp_path: Path) -> None:
    """Wherever the file of the cache was cut, or a bit of it turned over; where nothing is to be had, it is refused."""
    file = some_file(tmp_path, 1)
    kept = held_weights(str(file)).path
    whole, digest = kept.read_bytes(), kept.stem
    turned = whole[:-5] + bytes([whole[-5] ^ 8]) + whole[-4:]
    for damaged in (turned, whole[:-1], b""):
        kept.write_bytes(damaged)
        assert held_weights(str(file), digest) == (kept, digest) and kept.read_bytes() == whole
    os.utime(kept)  # looks otherwise, but is what it was
    file.unlink()
    assert held_weights(str(file), digest).path == kept and kept.read_bytes() == whole
    kept.write_bytes(turned)
    with pytest.raises(InputError, match=r"1.safetensors: no such file of weights"):
        held_weights(str(file), digest)


def test_weights_of_an_older_version_are_sealed(cache: Path, tmp_path: Path) -> None:
    file = some_file(tmp_path, 1)
    kept = held_weights(str(file)).path
    whole, digest = kept.read_bytes(), kept.stem
    seal = kept.with_suffix(".seal")
    file.unlink()
    for content in (None, "{"):
        seal.unlink() if content is None else seal.write_text(content)
        assert held_weights(str(file), digest).path == kept and '"sha256"' in seal.read_text()
    assert kept.read_bytes() == whole
    seal.unlink()
    kept.write_bytes(whole[:-1])
    with pytest.raises(InputError, match="no such file of weights"):
        held_weights(str(file), digest)


def test_a_cache_that_is_too_small(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METARAY_CACHE_GB", "1e-6")
    with pytest.raises(InputError, match=r"40\d\d bytes, but the cache may hold 1000 bytes: raise METARAY"):
        held_weights(str(some_file(tmp_path, 1)))
    monkeypatch.setenv("METARAY_CACHE_GB", "much")
    with pytest.raises(InputError, match="METARAY_CACHE_GB is the cache's size in GB"):
        held_weights(str(some_file(tmp_path, 1)))
