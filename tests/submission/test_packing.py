import io
import zipfile
from pathlib import Path

import pytest

import metaray
from metaray.errors import InputError
from metaray.submission.choice import LeftOut, Project
from metaray.submission.packing import Pack, pack, uri_of

PACKAGE = Path(metaray.__file__).parent
ABOUT = "metaray-1.2.dist-info/METADATA"
PEM = b"-----BEGIN RSA " + b"PRIVATE KEY-----\n"  # in two parts, or this file could not be submitted


def write(folder: Path, *names: str, content: bytes = b"xxx") -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    write(tmp_path / "site/metaray", "__init__.py", "py.typed", "data/omniglot.txt", "cli/app.py")
    write(tmp_path / "site/metaray", "__pycache__/__init__.cpython-311.pyc", "cli/__pycache__/app.pyc")
    return tmp_path / "site/metaray"


def all_of(folder: Path) -> Project:
    return Project(folder, include=tuple(path.relative_to(folder).as_posix() for path in folder.rglob("*")))


def test_what_a_users_project_leaves_out_is_not_left_out_of_the_package(package: Path, tmp_path: Path) -> None:
    odd = ("tokens.py", "secrets/rules.json", "build/x.py", "runs/x.txt", "api_key.txt", "a.pem", "big.npy", ".marker")
    write(package, *odd, content=PEM)
    (tmp_path / "p").mkdir()
    found = pack(Project(tmp_path / "p"), package, "1.2")
    usual = {"__init__.py", "py.typed", "data/omniglot.txt", "cli/app.py"}
    assert set(found.files) == {f"metaray/{name}" for name in usual | set(odd)}
    assert set(found.made) == {ABOUT} and found.left == ()


def test_metaray_itself_is_whole(tmp_path: Path) -> None:
    found = pack(Project(tmp_path), PACKAGE, "1")
    whole = {p for p in PACKAGE.rglob("*") if p.is_file() and "__pycache__" not in p.parts}
    assert set(found.files.values()) == whole
    assert found.size_bytes < 3_000_000


def test_too_much_is_refused_with_the_largest(package: Path, tmp_path: Path) -> None:
    project = tmp_path / "p"
    for number in range(7):
        write(project, f"f{number}.json", content=b"x" * (number + 1) * 100_000)
    wanted = all_of(project)
    assert pack(wanted, package, "1", limit_bytes=2_900_000).size_bytes == pytest.approx(2_800_000, abs=1000)
    with pytest.raises(InputError, match=r"are 2\.8 MB, more than 2\.5 MB") as caught:
        pack(wanted, package, "1", limit_bytes=2_500_000)
    listed = str(caught.value).splitlines()[1:]
    assert listed == [f"  0.{number + 1} MB  f{number}.json" for number in (6, 5, 4, 3, 2)]


def test_what_holds_a_key_is_refused_with_file_and_line(package: Path, tmp_path: Path) -> None:
    project = tmp_path / "p"
    write(project, "plain.py")
    write(project, "settings.py", content=b"import os\n\nKEY = '''" + PEM + b"hushhush'''\n")
    with pytest.raises(InputError, match=r"\n  settings\.py, line 3: a private key\n.*--exclude FILE") as caught:
        pack(Project(project, include=("*.py",)), package, "1")
    assert "hushhush" not in str(caught.value)
    assert "settings.py" not in pack(Project(project, include=("*.py",), exclude=("settings.py",)), package, "1").files
    assert "settings.py" in pack(Project(project, include=("*.py", "settings.py")), package, "1").files
    with pytest.raises(InputError, match="line 3: a private key"):
        pack(Project(project, needed=(project / "settings.py",)), package, "1")


def test_the_same_files_are_sent_once(package: Path, tmp_path: Path) -> None:
    for name in ("p", "q"):
        write(tmp_path / name, "r.py")
    first, second = (pack(all_of(tmp_path / name), package, "1").zipped() for name in ("p", "q"))
    assert uri_of(first) == uri_of(second)
    (tmp_path / "q/r.py").write_text("new")
    changed = pack(all_of(tmp_path / "q"), package, "1").zipped()
    assert uri_of(changed) != uri_of(first)
    assert uri_of(first).startswith("gcs://_ray_pkg_") and uri_of(first).endswith(".zip")
    with zipfile.ZipFile(io.BytesIO(changed)) as archive:
        assert archive.read("r.py") == b"new"
        assert b"Version: 1\n" in archive.read("metaray-1.dist-info/METADATA")


def test_what_stays_is_told_by_reason_and_not_at_length() -> None:
    left = [LeftOut(f"{number}.txt", "hidden") for number in range(7)] + [LeftOut("a.pem", "looks like a credential")]
    told = "hidden: 0.txt, 1.txt, 2.txt, 3.txt, 4.txt and 2 more; looks like a credential: a.pem"
    assert Pack({}, {}, tuple(left)).left_out() == told
