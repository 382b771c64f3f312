"""What is carried to a bare GPU machine."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from jobs.benchmarks.gpu import pack
from jobs.benchmarks.gpu.record import Record
from metaray.errors import InputError


def wheel(folder: Path, name: str, files: dict[str, str]) -> Path:
    path = folder / f"{name}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for inner, content in files.items():
            info = zipfile.ZipInfo(inner)
            info.external_attr = (0o755 if inner.endswith(".sh") else 0o644) << 16
            archive.writestr(info, content)
    return path


def test_versions_are_the_locked_ones() -> None:
    lock = "# made\npydantic_core==2.5\ntensorboardX==2.6\nray==2.60.0\n"
    assert pack.locked(["ray", "pydantic-core", "tensorboardx"], lock) == [
        "ray==2.60.0",
        "pydantic_core==2.5",
        "tensorboardX==2.6",
    ]
    with pytest.raises(ValueError, match="pins no version of pyarrow, numpy"):
        pack.locked(["pyarrow", "ray", "numpy"], lock)
    for names in pack.PARTS.values():
        assert len(pack.locked(names, (pack.ROOT / "requirements.lock").read_text())) == len(names)


def test_wheels_are_fetched_once(tmp_path: Path, monkeypatch: Any) -> None:
    wheel(tmp_path, "pydantic_core-2.5", {})
    wheel(tmp_path, "pydantic-2.5", {})
    commands: list[list[str]] = []

    def run(words: list[str], check: bool) -> None:
        commands.append(words)
        wheel(tmp_path, "ray-2.60.0", {})

    monkeypatch.setattr(subprocess, "run", run)
    found = pack.download(["ray==2.60.0", "pydantic-core==2.5"], tmp_path)
    assert [path.name for path in found] == ["ray-2.60.0-py3-none-any.whl", "pydantic_core-2.5-py3-none-any.whl"]
    assert pack.download(["ray==2.60.0"], tmp_path) == found[:1] and len(commands) == 1
    assert commands[0][-1] == "ray==2.60.0" and "--no-deps" in commands[0]


def test_what_nobody_needs_there_stays(tmp_path: Path) -> None:
    files = ["pyarrow/lib.so", "pyarrow/tests/test_a.py", "pyarrow/libarrow_flight.so.25", "pyarrow/include/a.h"]
    files += ["ray/run.sh", "ray/jars/ray.jar", "ray/rllib/__init__.py", "ray/data/a.py", "pyarrow/lib.pyx"]
    made = pack.unpacked([wheel(tmp_path, "all-1", dict.fromkeys(files, "x"))], "site")
    assert sorted((name, executable) for name, _, executable in made) == [
        ("site/pyarrow/lib.so", False),
        ("site/ray/data/a.py", False),
        ("site/ray/run.sh", True),
    ]


def test_the_same_members_give_the_same_archive(tmp_path: Path) -> None:
    members = [("b/run", b"run", True), ("a", b"content", False)]
    content = pack.compressed(members)
    assert content == pack.compressed(reversed(members))
    (tmp_path / "a.tar.xz").write_bytes(content)
    with tarfile.open(tmp_path / "a.tar.xz") as archive:
        archive.extractall(tmp_path / "out", filter="data")
    assert (tmp_path / "out" / "a").read_bytes() == b"content" and os.access(tmp_path / "out" / "b" / "run", os.X_OK)


def test_own_code_is_all_of_it_and_no_caches() -> None:
    names = {name for name, _, _ in pack.own_code()}
    assert {"code/metaray/data/omniglot_splits/vinyals.json", "code/jobs/benchmarks/gpu/__main__.py"} <= names
    assert not any("__pycache__" in name or name.startswith("code/tests") for name in names)


def test_a_pack_that_is_too_large_is_refused(tmp_path: Path) -> None:
    for name, size in (("a", 1 << 20), ("b", 2 << 20)):
        (tmp_path / name).write_bytes(bytes(size))
    files = sorted(tmp_path.iterdir())
    assert pack.within(files).splitlines()[-1] == "    3.00 MiB  in all"
    with pytest.raises(ValueError, match="more than 3 MiB:\n    1.00 MiB  a\n    2.00 MiB  b\n"):
        pack.within(files, 3 << 20)


def download_little(requirements: list[str], folder: Path) -> list[Path]:
    folder.mkdir(exist_ok=True)
    return [wheel(folder, requirement.replace("==", "-"), {"made_up/a.py": ""}) for requirement in requirements[:1]]


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack whose wheels hold next to nothing: to compress what it holds takes seconds."""
    folder = tmp_path_factory.mktemp("packed")
    omniglot = folder / "mine.arrow"
    omniglot.write_bytes(b"store")
    (folder / "gpu-pack").mkdir()
    (folder / "gpu-pack" / "site-of-older-wheels.tar.xz").touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pack, "download", download_little)
        pack.make(folder / "gpu-pack", folder / "wheels", omniglot)
    return folder / "gpu-pack"


@pytest.fixture
def made(packed: Path, tmp_path: Path, monkeypatch: Any) -> Path:
    """A copy of it that may be changed."""
    monkeypatch.setattr(pack, "download", download_little)
    return Path(shutil.copytree(packed, tmp_path / "gpu-pack"))


def test_a_pack_holds_all_parts_and_nothing_old(made: Path, tmp_path: Path) -> None:
    names = [path.name.partition("-")[0] for path in sorted(made.iterdir())]
    assert names == ["checkout.json", "code.tar.xz", "omniglot.tar.xz", "ray", "run.sh", "site"]
    site = next(made.glob("site-*"))
    before = site.stat().st_mtime_ns
    pack.make(made, tmp_path / "wheels", None)
    assert site.stat().st_mtime_ns == before and not (made / "omniglot.tar.xz").exists()
    with pytest.raises(InputError, match="holds none of images_background"):
        pack.make(made, tmp_path / "wheels", tmp_path)


def test_run_without_arguments_says_how(made: Path) -> None:
    done = subprocess.run(["bash", str(made / "run.sh")], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("usage: bash run.sh OUT [--ray]")


@pytest.mark.slow
def test_one_call_unpacks_elsewhere_and_runs_it(made: Path, tmp_path: Path) -> None:
    scratch, out = tmp_path / "scratch", tmp_path / "out"
    scratch.mkdir()
    words = ["bash", str(made / "run.sh"), str(out), "--device", "cpu", "--small", "--only", "conformance"]
    environment = {**os.environ, "PYTHON": sys.executable, "TMPDIR": str(scratch)}
    before = sorted(made.iterdir())
    done = subprocess.run([*words, "--budget-s", "3000"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "unpacked site code omniglot in" in done.stdout and Record(out / "record.json").is_good
    assert sorted(path.name for path in out.iterdir()) == ["log.txt", "record.json", "tables.md"]
    assert sorted(made.iterdir()) == before and list(scratch.glob("metaray-*")) == []
