import io
import zipfile
from pathlib import Path

import pytest

import metaray
from metaray.errors import InputError
from metaray.submit import packing
from metaray.submit.packing import pack, uri_of

PACKAGE = Path(metaray.__file__).parent


def write(folder: Path, *names: str, size: int = 3) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x" * size)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    write(tmp_path / "site/metaray", "__init__.py", "py.typed", "data/omniglot.txt", "cli/app.py")
    write(tmp_path / "site/metaray", "__pycache__/__init__.cpython-311.pyc", "cli/__pycache__/app.pyc")
    return tmp_path / "site/metaray"


OWN = {"metaray/__init__.py", "metaray/py.typed", "metaray/data/omniglot.txt", "metaray/cli/app.py"}
ABOUT = "metaray-1.2.dist-info/METADATA"


def test_what_goes_along(package: Path, tmp_path: Path) -> None:
    project = tmp_path / "project"
    wanted = {"r.py", "jobs/deep/recipe.py", "best.json", "a.toml", "b.yaml", "c.yml", "notes.txt", "small.csv"}
    write(project, *wanted)
    write(project, "photo.png", "data/store.arrow", "mlflow.db", "weights.bin", "notebook.ipynb", ".env", ".hidden.py")
    for folder in (
        ".git",
        ".venv/lib",
        "__pycache__",
        "a/__pycache__",
        "build",
        "dist",
        "runs/x",
        "mlruns",
        "mlartifacts",
    ):
        write(project, f"{folder}/x.py", f"{folder}/x.json")
    write(project, "demo-task/x.txt", "node_modules/x.json", "deep/site-packages/x.py", "thing.egg-info/SOURCES.txt")
    write(project, "my-env/pyvenv.cfg", "my-env/lib/x.py")
    write(project, "large.csv", size=100_000)
    found = pack(project, package, "1.2")
    assert set(found.files) == OWN | wanted
    assert set(found.made) == {ABOUT}
    assert found.withheld == ()


def test_a_checkout_that_holds_the_package_ships_it_once(tmp_path: Path) -> None:
    write(tmp_path, "platform/metaray/__init__.py", "platform/metaray.egg-info/SOURCES.txt", "jobs/omniglot.py")
    found = pack(tmp_path, tmp_path / "platform/metaray", "1.2")
    assert set(found.files) == {"metaray/__init__.py", "jobs/omniglot.py"}


def test_nothing_of_the_users_takes_metarays_place(package: Path, tmp_path: Path) -> None:
    write(tmp_path / "p", "metaray/old.py", "metaray.py", "metaray_recipes.py", "deep/metaray/mine.py")
    found = pack(tmp_path / "p", package, "1.2")
    assert set(found.files) == OWN | {"metaray_recipes.py", "deep/metaray/mine.py"}
    assert found.files["metaray/__init__.py"] == package / "__init__.py"


def test_what_looks_like_credentials_stays(package: Path, tmp_path: Path) -> None:
    secret = {"credentials.json", "my-secret.yaml", "deep/auth_token.txt", "service-account.json", "Passwords.txt"}
    plain = {"tokenizer.json", "tokens.py", "secretary.txt"}
    write(tmp_path / "p", *secret, *plain)
    found = pack(tmp_path / "p", package, "1.2")
    assert set(found.files) == OWN | plain
    assert set(found.withheld) == secret
    assert not secret & set(zipfile.ZipFile(io.BytesIO(found.zipped())).namelist())


def test_too_much_is_refused_with_the_largest(package: Path, tmp_path: Path) -> None:
    project = tmp_path / "p"
    for number in range(7):
        write(project, f"f{number}.json", size=(number + 1) * 100_000)
    assert pack(project, package, "1", limit_bytes=2_900_000).size_bytes == pytest.approx(2_800_000, abs=1000)
    with pytest.raises(InputError, match=r"are 2\.8 MB, more than 2\.5 MB") as caught:
        pack(project, package, "1", limit_bytes=2_500_000)
    listed = str(caught.value).splitlines()[1:]
    assert listed == [f"  0.{number + 1} MB  f{number}.json" for number in (6, 5, 4, 3, 2)]


def test_too_many_files(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "MOST_FILES", 3)
    write(tmp_path / "p", "a.py", "b.py", "c.py", "photo1.png", "photo2.png")
    pack(tmp_path / "p", package, "1")
    write(tmp_path / "p", "d.py")
    with pytest.raises(InputError, match="more than 3 files"):
        pack(tmp_path / "p", package, "1")


def test_the_same_files_are_sent_once(package: Path, tmp_path: Path) -> None:
    for name in ("p", "q"):
        write(tmp_path / name, "r.py")
    first, second = (pack(tmp_path / name, package, "1").zipped() for name in ("p", "q"))
    assert uri_of(first) == uri_of(second)
    (tmp_path / "q/r.py").write_text("new")
    changed = pack(tmp_path / "q", package, "1").zipped()
    assert uri_of(changed) != uri_of(first)
    assert uri_of(first).startswith("gcs://_ray_pkg_") and uri_of(first).endswith(".zip")
    with zipfile.ZipFile(io.BytesIO(changed)) as archive:
        assert archive.read("r.py") == b"new"
        assert b"Version: 1\n" in archive.read("metaray-1.dist-info/METADATA")


def test_metaray_itself_is_whole(tmp_path: Path) -> None:
    found = pack(tmp_path, PACKAGE, "1")
    whole = {p for p in PACKAGE.rglob("*") if p.is_file() and "__pycache__" not in p.parts}
    assert set(found.files.values()) == whole
    assert found.size_bytes < 3_000_000
