"""What travels with a job: metaray itself and the files of the user's project that it may need."""

import hashlib
import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from metaray.errors import InputError
from metaray.submission import credentials
from metaray.submission.choice import SMALLER, LeftOut, Project

LIMIT_BYTES = 20_000_000
MOST_NAMED = 5
EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Pack:
    """Files to ship.

    Attributes:
        files: Files by their path inside the pack, sorted.
        made: Further files that are on no disk.
        left: The user's files that stay here.
    """

    files: Mapping[str, Path]
    made: Mapping[str, bytes]
    left: tuple[LeftOut, ...] = ()

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each file, before compression."""
        sizes = {name: path.stat().st_size for name, path in self.files.items()}
        return dict(sorted((sizes | {name: len(data) for name, data in self.made.items()}).items()))

    @property
    def size_bytes(self) -> int:
        """Size of all files in bytes, before compression."""
        return sum(self.sizes.values())

    def summary(self) -> str:
        """How many files, and how large."""
        return f"{len(self.files) + len(self.made)} files, {self.size_bytes / 1e6:.2f} MB"

    def left_out(self) -> str:
        """What stays here, by reason, with some of the names; empty if nothing does."""
        by_reason: dict[str, list[str]] = {}
        for name, why in self.left:
            by_reason.setdefault(why, []).append(name)
        return "; ".join(f"{why}: {_some(names)}" for why, names in sorted(by_reason.items()))

    def zipped(self) -> bytes:
        """The pack as a zip archive; the same files give the same bytes."""
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
    """URI that a Ray cluster keeps it under: named by its content, so that it is sent once."""
    return f"gcs://_ray_pkg_{hashlib.sha256(archive).hexdigest()[:32]}.zip"


def pack(project: Project, package: Path, version: str, *, limit_bytes: int = LIMIT_BYTES) -> Pack:
    """Collect metaray and the project's files.

    Args:
        project: The user's project.
        package: Folder of metaray itself, which goes along whole.
        version: Version of metaray; goes along as metadata, as the nodes may have another metaray installed, or none.
        limit_bytes: Most bytes that all files together may have.

    Raises:
        InputError: If it is too much (names the largest files), or a file of the user's holds what looks like a key.
    """
    users, left = project.choose(package)
    about = f"Metadata-Version: 2.1\nName: metaray\nVersion: {version}\n"
    made = {f"metaray-{version}.dist-info/METADATA": about.encode()}
    found = Pack(dict(sorted((users | _own(package)).items())), made, tuple(left))
    _check_size(found, project.folder, limit_bytes)
    _check_content({name: path for name, path in users.items() if not project.names(name)})
    return found


def _own(package: Path) -> dict[str, Path]:
    """All of metaray but what Python compiles."""
    paths = (path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {f"metaray/{path.relative_to(package).as_posix()}": path for path in paths}


def _check_size(found: Pack, project: Path, limit_bytes: int) -> None:
    if found.size_bytes <= limit_bytes:
        return
    largest = sorted(((size, name) for name, size in found.sizes.items()), reverse=True)[:MOST_NAMED]
    listed = "".join(f"\n  {size / 1e6:.1f} MB  {name}" for size, name in largest)
    raise InputError(
        f"the files below {project} that a job would take along are {found.size_bytes / 1e6:.1f} MB, more than "
        f"{limit_bytes / 1e6:g} MB; {SMALLER}. The largest:{listed}"
    )


def _check_content(files: Mapping[str, Path]) -> None:
    found = [f"{name}, {what}" for name, path in files.items() if (what := credentials.by_content(_read(path)))]
    if found:
        listed = "".join(f"\n  {each}" for each in found[:MOST_NAMED])
        more = f"\n  and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
        raise InputError(
            f"{len(found)} of the files that a job would take along hold what looks like a key:{listed}{more}\n"
            "Leave them out with --exclude FILE, or send them all the same with --include FILE"
        )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read, and jobs take it along: {error}") from None
