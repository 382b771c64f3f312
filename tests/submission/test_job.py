"""The module that runs on the cluster."""

import json
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import metaray
from metaray.submission.job import EXPECTS, at_home, differing, versions
from tests.patience import PATIENT_S

SAME = {"python": "3.11.9", "ray": "2.60.0", "torch": "2.13.0+cpu", "metaray": "0.1.0"}


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, []),
        ({"python": "3.11.2", "torch": "2.13.1+cu130"}, []),
        ({"python": "3.12.9"}, ["python 3.11.9 here, 3.12.9 on the cluster"]),
        ({"ray": "2.60.1"}, ["ray 2.60.0 here, 2.60.1 on the cluster"]),
        ({"torch": "2.12.0"}, ["torch 2.13.0+cpu here, 2.12.0 on the cluster"]),
        ({"torch": "none", "metaray": "0.2.0"}, ["torch 2.13.0+cpu here, none", "metaray 0.1.0 here, 0.2.0"]),
    ],
)
def test_which_versions_differ(changes: dict[str, str], wanted: list[str]) -> None:
    found = differing(SAME, SAME | changes)
    assert len(found) == len(wanted)
    assert all(text.startswith(start) for text, start in zip(found, wanted, strict=True))
    assert differing({}, SAME) == differing(SAME, {}) == []


def test_versions() -> None:
    assert versions() == {
        "python": ".".join(map(str, sys.version_info[:3])),
        **{name: version(name) for name in ("ray", "torch", "metaray")},
    }


def test_home_in_sqlite_uris(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert at_home("sqlite:///~/metaray/mlflow.db") == "sqlite:////home/me/metaray/mlflow.db"
    assert at_home("~/metaray/runs") == "~/metaray/runs"


def run_job(tmp_path: Path, expects: dict[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    platform = Path(metaray.__file__).parents[1]
    environment = os.environ | {EXPECTS: json.dumps(expects), "HOME": str(tmp_path), "PYTHONPATH": str(platform)}
    command = [sys.executable, "-m", "metaray.submission.job", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=PATIENT_S)


def test_it_is_the_metaray_command(tmp_path: Path) -> None:
    done = run_job(tmp_path, versions(), "--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"metaray \d+\.\d+\.\d+\n", done.stdout)
    assert run_job(tmp_path, {}, "trian").returncode == 2
    assert not (tmp_path / "metaray").exists()
    done = run_job(tmp_path, {}, "train", "--tracking-uri", "sqlite:///~/metaray/x.db")
    assert f"sqlite:///{tmp_path}/metaray/x.db" in done.stderr and (tmp_path / "metaray").is_dir()


def test_other_versions_end_it_at_once(tmp_path: Path) -> None:
    done = run_job(tmp_path, versions() | {"torch": "1.13.0", "ray": "2.1.0"}, "--version")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: the cluster has other versions: ray 2.1.0 here, {version('ray')} on the")
    assert "; torch 1.13.0 here, " in done.stderr and "--python" in done.stderr
