"""Temporary folders of killed processes."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from metaray.distributed.temporary_folders import scratch

HOLD = """
import sys
from metaray.distributed.temporary_folders import scratch
with scratch("metaray-test-") as folder:
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def test_a_folder_is_gone_after_its_block(root: Path) -> None:
    with scratch("metaray-test-") as folder, scratch("metaray-test-") as other:
        assert folder != other and Path(folder).is_dir() and Path(folder).parent == root
        (Path(folder) / "state").write_text("x")
    assert not list(root.iterdir())


def test_what_a_killed_search_left_goes_and_what_is_in_use_stays(root: Path) -> None:
    running = [
        subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    folders = []
    for process in running:
        assert process.stdout is not None
        folders.append(Path(process.stdout.readline().strip()))
    (folders[0] / "state").write_text("x")
    running[0].kill()
    running[0].communicate()
    others = root / "metaray-test-of-somebody-else"
    others.mkdir()
    assert folders[0].is_dir() and folders[1].is_dir()
    with scratch("metaray-test-") as mine:
        assert sorted(root.iterdir()) == sorted([folders[1], others, Path(mine)])
    running[1].communicate("")
    assert list(root.iterdir()) == [others]
