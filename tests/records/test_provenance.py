"""Where a result comes from."""

import json
import subprocess
from pathlib import Path

import pytest
import torch

from metaray.records.provenance import git_state, provenance


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


def test_commit_and_dirty_flag(tmp_path: Path) -> None:
    git(tmp_path, "init")
    assert git_state(tmp_path) == {}  # no commit yet
    (tmp_path / "a").write_text("1")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-m", "one")
    clean = git_state(tmp_path)
    assert len(clean["git.commit"]) == 40
    assert clean["git.dirty"] == "false"
    (tmp_path / "untracked").write_text("")
    assert git_state(tmp_path)["git.dirty"] == "false"
    (tmp_path / "a").write_text("2")
    assert git_state(tmp_path) == {**clean, "git.dirty": "true"}


def test_outside_a_checkout_there_is_no_commit(tmp_path: Path) -> None:
    assert git_state(tmp_path) == {}
    assert git_state(tmp_path / "missing") == {}


def test_tags(tmp_path: Path) -> None:
    argv = ["metaray", "train", "--tracking-uri", "https://me:secret@host/x", "a b"]
    tags = provenance(tmp_path, argv)
    assert tags["command"] == "metaray train --tracking-uri 'https://me:***@host/x' 'a b'"
    assert tags["torch.version"] == torch.__version__
    assert {"metaray.version", "numpy.version", "ray.version", "python.version", "cpu.capability"} <= tags.keys()
    assert "git.commit" not in tags


@pytest.mark.parametrize("program", ["metaray", "/venv/bin/metaray", "/ray/_ray_pkg_1/metaray/__main__.py"])
def test_metaray_is_called_by_its_name(program: str, tmp_path: Path) -> None:
    assert provenance(tmp_path, [program, "train"])["command"] == "metaray train"
    assert provenance(tmp_path, ["/home/me/mine.py", "train"])["command"] == "/home/me/mine.py train"
    assert provenance(tmp_path, [""])["command"] == "''"  # Python's own prompt
    assert provenance(tmp_path, [])["command"] == ""


def test_a_job_has_the_commit_that_it_was_submitted_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"git.commit": "0a1b", "git.dirty": "true"}
    monkeypatch.setenv("METARAY_CHECKOUT", json.dumps(there))
    assert provenance(tmp_path).items() >= there.items()
    git(tmp_path, "init")  # what is around the folder of a job is nothing of its own
    git(tmp_path, "commit", "--allow-empty", "-m", "one")
    assert provenance(tmp_path)["git.commit"] == "0a1b"
    monkeypatch.setenv("METARAY_CHECKOUT", "{}")
    assert provenance(tmp_path)["git.commit"] == git_state(tmp_path)["git.commit"]
