"""What travels with a job: metaray itself and the files of the user's project that a recipe may need."""

import hashlib
import io
import os
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from metaray.errors import InputError

LIMIT_BYTES = 20_000_000
MOST_FILES = 5_000
SUFFIXES = frozenset({".py", ".json", ".toml", ".yaml", ".yml", ".txt"})
SMALL_SUFFIX, SMALL_BYTES = ".csv", 100_000
SKIPPED = frozenset(
    {"__pycache__", "build", "demo-task", "dist", "mlartifacts", "mlruns", "node_modules", "runs", "site-packages"}
)
SECRET = re.compile(r"(^|[-_. ])(secrets?|credentials?|tokens?|passwords?|service[-_]account)([-_. ]|$)", re.IGNORECASE)
SMALLER = "move data elsewhere, or start from your recipe's own folder"
EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Pack:
    """Files to ship.

    Attributes:
        files: by their path inside the pack, sorted.
        made: further files that are on no disk.
        withheld: the user's files that look like credentials, and stay here.
    """

    files: Mapping[str, Path]
    made: Mapping[str, bytes]
    withheld: tuple[str, ...] = ()

    @property
    def size_bytes(self) -> int:
        """Before compression."""
        return sum(path.stat().st_size for path in self.files.values()) + sum(map(len, self.made.values()))

    def zipped(self) -> bytes:
        """As a zip archive; the same files give the same bytes."""
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zip_file:
            for name in sorted({*self.files, *self.made}):
                entry = zipfile.ZipInfo(name, EPOCH)
                entry.external_attr = 0o644 << 16
                entry.compress_type = zipfile.ZIP_DEFLATED
                data = self.made[name] if name in self.made else _read(self.files[name])
                zip_file.writestr(entry, data)
        return archive.getvalue()


def uri_of(archive: bytes) -> str:
    """Under which a Ray cluster keeps it: named by its content, so that it is sent once."""
    return f"gcs://_ray_pkg_{hashlib.sha256(archive).hexdigest()[:32]}.zip"


def pack(project: Path, package: Path, version: str, *, limit_bytes: int = LIMIT_BYTES) -> Pack:
    """Collect metaray and the project's files.

    Of the project go Python files, JSON, TOML, YAML and text, and small CSV files. Hidden folders, virtual
    environments, builds, caches, runs and whatever looks like credentials stay here.

    Args:
        project: folder from which recipes are named and import.
        package: folder of metaray itself.
        version: of metaray; goes along as metadata, as the nodes may have another metaray installed, or none.
        limit_bytes: of all files together.

    Raises:
        InputError: if it is too much; names the largest files.
    """
    own = {f"metaray/{name}": path for name, path in _below(package, package.parent)}
    users = dict(islice(_project_files(project, package), MOST_FILES + 1))
    if len(users) > MOST_FILES:
        raise InputError(f"a job would take along more than {MOST_FILES} files below {project}; {SMALLER}")
    withheld = tuple(name for name, path in users.items() if path.suffix != ".py" and SECRET.search(path.stem))
    files = {name: path for name, path in users.items() if name not in withheld} | own
    about = f"Metadata-Version: 2.1\nName: metaray\nVersion: {version}\n"
    found = Pack(dict(sorted(files.items())), {f"metaray-{version}.dist-info/METADATA": about.encode()}, withheld)
    _check(found, project, limit_bytes)
    return found


def _project_files(project: Path, package: Path) -> Iterator[tuple[str, Path]]:
    return ((name, path) for name, path in _below(project, package) if _is_wanted(path) and not _is_own(name))


def _below(folder: Path, not_in: Path) -> Iterator[tuple[str, Path]]:
    """Files below a folder, by their path in it; without caches, environments, builds and the folder `not_in`."""
    for root, folders, names in os.walk(folder):
        here = Path(root)
        folders[:] = sorted(name for name in folders if _is_entered(here / name, not_in))
        paths = (here / name for name in sorted(names) if not name.startswith("."))
        yield from ((path.relative_to(folder).as_posix(), path) for path in paths if path.is_file())


def _is_entered(folder: Path, not_in: Path) -> bool:
    name = folder.name
    if name.startswith(".") or name in SKIPPED or name.endswith((".egg-info", ".dist-info")):
        return False
    return not (folder / "pyvenv.cfg").exists() and folder.resolve() != not_in.resolve()


def _is_wanted(path: Path) -> bool:
    suffix = path.suffix.lower()
    return suffix in SUFFIXES or (suffix == SMALL_SUFFIX and path.stat().st_size < SMALL_BYTES)


def _is_own(name: str) -> bool:
    """Whether it would stand in metaray's place."""
    return name.partition("/")[0] in ("metaray", "metaray.py")


def _check(found: Pack, project: Path, limit_bytes: int) -> None:
    size_bytes = found.size_bytes
    if size_bytes <= limit_bytes:
        return
    largest = sorted(((path.stat().st_size, name) for name, path in found.files.items()), reverse=True)[:5]
    listed = "".join(f"\n  {size / 1e6:.1f} MB  {name}" for size, name in largest)
    raise InputError(
        f"the files below {project} that a job would take along are {size_bytes / 1e6:.1f} MB, more than "
        f"{limit_bytes / 1e6:g} MB; {SMALLER}. The largest:{listed}"
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read, and jobs take it along: {error}") from None
