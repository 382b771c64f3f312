import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from metaray.errors import InputError
from metaray.submission import choice
from metaray.submission.choice import Project, imported

SECRET = (
    *("secrets/db.yaml", "credentials/gcp.json", "private_key.json", "id_rsa.txt", "kubeconfig.yaml", "api_key.txt"),
    *("deep/auth_token.txt", "serviceAccountKey.json", "Passwords.txt", "cert/server.pem", "x.key", "prod.env"),
    *("secrets/rules.py", "a/.ssh/config", ".env", ".env.production", ".netrc", ".aws/credentials"),
)
PLAIN = ("r.py", "tokens.py", "tokenizer.json", "secretary.txt", "keyboard.csv", "build/lib.py", "weights.npy", "a.png")


def git(folder: Path, *words: str) -> None:
    user = ("-c", "user.name=A", "-c", "user.email=a@b.c", "-c", "protocol.file.allow=always")
    subprocess.run(("git", *user, *words), cwd=folder, check=True, capture_output=True)


def write(folder: Path, *names: str, content: str = "") -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "p").mkdir()
    return tmp_path / "p"


def chosen(wanted: Project) -> tuple[set[str], dict[str, str]]:
    files, left = wanted.choose(wanted.folder.parent / "site/metaray")
    return set(files), dict(left)


def test_what_git_tracks_goes_along_and_the_rest_is_listed(project: Path) -> None:
    write(project, *PLAIN, *SECRET, "gone.py", ".github/ci.yml")
    write(project, ".gitignore", content="ignored.txt\n")
    git(project, "init")
    git(project, "add", ".")
    write(project, "new.py", "ignored.txt")
    (project / "gone.py").unlink()
    files, left = chosen(Project(project))
    assert files == set(PLAIN)
    assert {name for name, why in left.items() if why == choice.CREDENTIAL} >= set(SECRET) - {"a/.ssh/config"}
    assert left["new.py"] == "not tracked by git" and left[".github/ci.yml"] == "hidden" and "ignored.txt" not in left
    assert not files & set(left)


def test_a_folder_of_a_worktree_with_a_submodule(project: Path, tmp_path: Path) -> None:
    write(tmp_path / "library", "layers.py", "secrets/x.json")
    for folder in (tmp_path / "library", project):
        git(folder, "init")
        write(folder, "work/r.py", "other/x.py")
        git(folder, "add", ".")
        git(folder, "commit", "-m", "one")
    git(project, "submodule", "add", str(tmp_path / "library"), "work/library")
    git(project, "commit", "-m", "two")
    git(project, "worktree", "add", str(tmp_path / "tree"))
    library = {f"library/{name}" for name in ("layers.py", "work/r.py", "other/x.py")}
    assert chosen(Project(project / "work"))[0] == {"r.py", *library}
    assert chosen(Project(tmp_path / "tree/work"))[0] == {"r.py"}  # where it is not checked out


def test_without_a_repository_only_what_is_needed_goes_along(project: Path) -> None:
    write(project, "r.py", "nets.py", "notes.txt", "runs/x.json", "env/pyvenv.cfg", "env/x.py", "__pycache__/r.pyc")
    files, left = chosen(Project(project, needed=(project / "r.py", Path("nets.py"), Path("/elsewhere/x.py"))))
    assert files == {"r.py", "nets.py"}
    assert left == {"notes.txt": "in no git repository, and not imported by the recipe"}


@pytest.mark.parametrize(("path", "why"), [("", "it is not installed"), ("bin", "dubious ownership")])
def test_a_repository_that_git_does_not_read(
    path: str, why: str, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(project, "r.py", "x.py", ".git/HEAD")
    write(tmp_path, "bin/git", content="#!/bin/sh\necho fatal: dubious ownership >&2; exit 128\n")
    (tmp_path / "bin/git").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / path) if path else "")
    files, left = chosen(Project(project, needed=(project / "r.py",)))
    assert files == {"r.py"} and "git does not say what it tracks" in left["x.py"] and why in left["x.py"]


def test_what_is_included_and_excluded(project: Path) -> None:
    write(project, "r.py", "data/a.csv", "data/b.csv", "data/deep/c.csv", "data/token.txt", "data/.x", "metaray/a.py")
    files, left = chosen(Project(project, include=("data", "metaray"), exclude=("**/b.csv",)))
    assert files == {"data/a.csv", "data/deep/c.csv"}
    assert left["data/b.csv"] == "excluded" and left["data/token.txt"] == choice.CREDENTIAL
    assert left["data/.x"] == "hidden" and left["metaray/a.py"] == "it would stand in metaray's place"
    assert chosen(Project(project, include=("./data/token.txt", "data/.x")))[0] == {"data/token.txt", "data/.x"}


@pytest.mark.parametrize("pattern", ["../x", "/etc/passwd", "no-such*", ""])
def test_patterns_that_fit_nothing_here(pattern: str, project: Path, tmp_path: Path) -> None:
    write(tmp_path, "x")
    with pytest.raises(InputError, match=r"--include .*(inside|fits no file)"):
        chosen(Project(project, include=(pattern,)))


def test_no_link_leads_out_of_the_project_or_to_what_stays(project: Path, tmp_path: Path) -> None:
    write(tmp_path, "outside/plain.json", "outside/deep/plain.json")
    write(project, "real.json", "conf/a.json", "secrets/db.json", "untracked.json")
    links = {"good.json": "real.json", "bad.json": "../outside/plain.json", "conf2": "conf", "out": "../outside"}
    links |= {"hosts": "/etc/hosts", "db.json": "secrets/db.json", "loop": "loop", "lost": "nothing"}
    links |= {"new.json": "untracked.json"}
    for name, target in links.items():
        (project / name).symlink_to(target)
    git(project, "init")
    git(project, "add", *links, "real.json", "conf", "secrets")
    files, left = chosen(Project(project))
    assert files == {"real.json", "good.json", "conf/a.json"}
    assert {name for name, why in left.items() if why == "a link out of the project"} == {"bad.json", "out", "hosts"}
    assert left["conf2"] == "a link to a folder" and left["db.json"] == choice.CREDENTIAL
    assert left["lost"] == left["loop"] == "a link that leads nowhere"
    assert left["new.json"] == "a link to a file that does not go along"
    assert chosen(Project(project, include=("out/plain.json", "out/**/*.json")))[1]["out/plain.json"].startswith(
        "a link"
    )


def test_a_needed_file_that_cannot_go_along_is_refused(project: Path, tmp_path: Path) -> None:
    write(tmp_path, "shared/nets.py")
    (project / "lib").symlink_to(tmp_path / "shared")
    with pytest.raises(InputError, match=r"lib/nets\.py, which the recipe needs, cannot go along: a link out of the"):
        chosen(Project(project, needed=(project / "lib/nets.py",)))
    write(project, "r.py")
    with pytest.raises(InputError, match=r"r\.py, which the recipe needs, cannot go along: excluded"):
        chosen(Project(project, needed=(project / "r.py",), exclude=("*.py",)))


def test_a_needed_module_goes_along_whatever_its_name(project: Path) -> None:
    write(project, ".work/r.py", "secrets/parts.py", "real/nets.py")
    (project / "lib").symlink_to("real")
    needed = tuple(project / name for name in (".work/r.py", "secrets/parts.py", "lib/nets.py"))
    assert chosen(Project(project, needed=needed))[0] == {".work/r.py", "secrets/parts.py", "lib/nets.py"}


def test_too_many_files(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "MOST_FILES", 3)
    write(project, *(f"{name}.py" for name in "abcd"))
    assert len(chosen(Project(project, include=("[abc].py",)))[0]) == 3
    with pytest.raises(InputError, match="more than 3 files"):
        chosen(Project(project, include=("*.py",)))


def test_modules_of_the_project_are_those_it_holds_itself(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = ("nets.py", "pkg/__init__.py", ".venv/lib/x.py", "old/site-packages/y.py", "gone.py")
    write(project, *files[:-1])
    monkeypatch.setattr(sys, "prefix", str(project / ".venv"))
    modules: list[ModuleType | None] = [None, ModuleType("built_in"), os]
    for number, file in enumerate(files):
        modules.append(ModuleType(f"m{number}"))
        modules[-1].__file__ = str(project / file)  # type: ignore[union-attr]
    assert imported(project, modules) == (project / "nets.py", project / "pkg/__init__.py")
    assert imported(project) == ()
