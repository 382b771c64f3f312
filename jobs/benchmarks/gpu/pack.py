"""What a bare GPU machine lacks, as one folder to carry there: one call on it then does everything.

    python -m jobs.benchmarks.gpu.pack [--out gpu-pack] [--omniglot omniglot.arrow] [--wheels build/gpu-wheels]
    bash gpu-pack/run.sh OUT [--ray] [options of jobs.benchmarks.gpu]        on that machine

Such a machine has torch, numpy, Pillow, matplotlib, safetensors and pandas for Python 3.12 on x86-64, but no pyarrow,
pydantic or Ray, and no network. The folder holds, each compressed by itself: their wheels at the locked versions,
unpacked and without what nobody there needs; Ray's, which only --ray unpacks; this checkout's metaray and jobs; and
Omniglot's class store.
"""

import argparse
import hashlib
import io
import json
import lzma
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from metaray.data.omniglot import import_omniglot
from metaray.records.provenance import CHECKOUT, git_state

ROOT = Path(__file__).resolve().parents[3]
LIMIT_BYTES = 60 << 20
PYTHON = "3.12"
PLATFORMS = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014", "manylinux2010", "manylinux1")

PARTS: dict[str, tuple[str, ...]] = {
    "site": (
        "pyarrow",
        "pydantic",
        "pydantic-core",
        "typing-inspection",
        "annotated-types",
        "typing-extensions",
        "psutil",
    ),
    "ray": (
        *("ray", "click", "jsonschema", "jsonschema-specifications", "referencing", "rpds-py", "attrs", "msgpack"),
        *("tensorboardx", "protobuf", "pyyaml", "requests", "idna", "charset-normalizer", "urllib3", "certifi"),
        *("filelock", "packaging"),
    ),
}
"""Folders on that machine, and the packages in each; Ray's with all that it imports, but for pandas."""

DROPPED = (
    *("pyarrow/tests/*", "pyarrow/include/*", "pyarrow/src/*", "*flight*", "*.pyx", "*.pxd", "*.pxi"),
    *("ray/jars/*", "ray/rllib/*", "ray/cpp/*", "ray/dashboard/client/*", "*.map"),
)
"""Tests, headers, Arrow's RPC, Java, C++ and reinforcement learning, the dashboard's pages, source maps."""

# Machine code compresses better where the jumps in it are made absolute first.
FILTERS = [{"id": lzma.FILTER_X86}, {"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": 1 << 27}]

Member = tuple[str, bytes, bool]
"""Path in an archive, content, whether it is executable."""


def locked(names: Iterable[str], lock: str) -> list[str]:
    """The requirements of some packages as `requirements.lock` pins them.

    Raises:
        ValueError: if it does not pin one of them.
    """
    pinned = {normalised(line.partition("==")[0]): line.strip() for line in lock.splitlines() if "==" in line}
    missing = [name for name in names if name not in pinned]
    if missing:
        raise ValueError(f"requirements.lock pins no version of {', '.join(missing)}")
    return [pinned[name] for name in names]


def normalised(name: str) -> str:
    """A package's name as indexes write it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def download(requirements: Sequence[str], folder: Path) -> list[Path]:
    """Wheels for that machine, from the cache in `folder` where they are there; in the order of `requirements`."""
    folder.mkdir(parents=True, exist_ok=True)
    lacking = [requirement for requirement in requirements if not _wheels(requirement, folder)]
    if lacking:
        words = ["--no-deps", "--only-binary=:all:", "--python-version", PYTHON, "--implementation", "cp"]
        words += [word for name in PLATFORMS for word in ("--platform", f"{name}_x86_64")]
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *words, "--dest", str(folder), *lacking], check=True)
    return [_wheels(requirement, folder)[0] for requirement in requirements]


def _wheels(requirement: str, folder: Path) -> list[Path]:
    name, _, version = requirement.partition("==")
    return [path for path in folder.glob("*.whl") if _is(path, normalised(name), version)]


def _is(wheel: Path, name: str, version: str) -> bool:
    parts = wheel.name.split("-")
    return normalised(parts[0]) == name and parts[1] == version


def unpacked(wheels: Iterable[Path], under: str) -> Iterator[Member]:
    """What is in some wheels, without what is dropped."""
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            for info in archive.infolist():
                if not info.is_dir() and not any(fnmatchcase(info.filename, pattern) for pattern in DROPPED):
                    executable = bool(info.external_attr >> 16 & 0o100)
                    yield f"{under}/{info.filename}", archive.read(info), executable


def own_code() -> Iterator[Member]:
    """metaray and the jobs of this checkout."""
    for folder, base in ((ROOT / "platform" / "metaray", ROOT / "platform"), (ROOT / "jobs", ROOT)):
        for path in sorted(folder.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                yield f"code/{path.relative_to(base).as_posix()}", path.read_bytes(), False


def compressed(members: Iterable[Member]) -> bytes:
    """A tar under xz; the same members give the same bytes."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content, executable in sorted(members):
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o755 if executable else 0o644
            archive.addfile(info, io.BytesIO(content))
    return lzma.compress(packed.getvalue(), filters=FILTERS)


def write_wheels(part: str, out: Path, cache: Path) -> Path:
    """The archive of a part's wheels; one that is there of the same wheels is kept, since compressing takes minutes."""
    wheels = download(locked(PARTS[part], (ROOT / "requirements.lock").read_text()), cache)
    key = hashlib.sha256(json.dumps([[wheel.name for wheel in wheels], DROPPED]).encode()).hexdigest()[:12]
    path = out / f"{part}-{key}.tar.xz"
    if not path.exists():
        print(f"compressing {part}: {', '.join(wheel.name for wheel in wheels)}", flush=True)
        write(path, compressed(unpacked(wheels, part)))
    return path


def write(path: Path, content: bytes) -> None:
    """Beside, then renamed."""
    beside = path.with_name(f".{path.name}.tmp")
    beside.write_bytes(content)
    beside.replace(path)


def store_of(omniglot: Path, cache: Path) -> Path:
    """Omniglot's class store: `omniglot` itself, or imported from it where it is a folder."""
    if not omniglot.is_dir():
        return omniglot
    return import_omniglot(omniglot, cache / "omniglot.arrow").path


def make(out: Path, cache: Path, omniglot: Path | None) -> list[Path]:
    """Write the folder; returns its files. What else was in it goes."""
    out.mkdir(parents=True, exist_ok=True)
    files = [write_wheels(part, out, cache) for part in PARTS]
    contents = {"code.tar.xz": compressed(own_code())}
    if omniglot is not None:
        store = store_of(omniglot, cache)
        contents["omniglot.tar.xz"] = compressed([("omniglot.arrow", store.read_bytes(), False)])
    contents["checkout.json"] = json.dumps(git_state(ROOT)).encode()
    contents["run.sh"] = (ROOT / "jobs" / "benchmarks" / "gpu" / "run.sh").read_bytes()
    for name, content in contents.items():
        write(out / name, content)
        files.append(out / name)
    for path in set(out.iterdir()) - set(files):
        path.unlink() if path.is_file() else shutil.rmtree(path)
    return files


def within(files: Iterable[Path], limit_bytes: int = LIMIT_BYTES) -> str:
    """The sizes, in words.

    Raises:
        ValueError: with the sizes, if all together are too large to be carried.
    """
    sizes = {path.name: path.stat().st_size for path in files}
    total = sum(sizes.values())
    listed = "\n".join(f"{size / 2**20:8.2f} MiB  {name}" for name, size in [*sizes.items(), ("in all", total)])
    if total >= limit_bytes:
        raise ValueError(f"more than {limit_bytes / 2**20:g} MiB:\n{listed}")
    return listed


def main() -> None:
    """Make the folder, and say how large it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, default=ROOT / "gpu-pack", help="a folder of its own: what else is in it goes"
    )
    parser.add_argument("--omniglot", type=Path, help="Omniglot's class store, or the folder of its zips")
    parser.add_argument("--wheels", type=Path, default=ROOT / "build" / "gpu-wheels", help="cache of downloaded wheels")
    options = parser.parse_args()
    print(within(make(options.out, options.wheels, options.omniglot)))
    print(f"there: bash {options.out.name}/run.sh OUT [--ray]   ({CHECKOUT} says which commit it is)")


if __name__ == "__main__":
    main()
