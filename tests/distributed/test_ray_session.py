"""What a local Ray leaves behind."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from metaray.distributed.ray_session import KEEP, LATEST, LOGS, MARK, keep_logs, sweep
from tests.patience import PATIENT_S

OWN = """
import sys
from pathlib import Path
from metaray.distributed.ray_session import keep_logs, own_session
folder = Path(sys.argv[1])
(folder / "logs").mkdir(parents=True)
(folder / "logs" / "raylet.out").write_text("why")
(folder / "sockets").mkdir()
(folder.parent / "session_latest").unlink(missing_ok=True)
(folder.parent / "session_latest").symlink_to(folder)
own_session(folder)
if "failed" in sys.argv:
    keep_logs(folder / "logs")
print("ready", flush=True)
sys.stdin.read()
"""

LOCAL = """
import sys
from metaray.distributed.cluster import join_cluster, ray_logs
from metaray.distributed.ray_session import MARK
import ray
join_cluster(None)
folder = ray._private.worker.global_worker.node.get_session_dir_path()
print(folder, flush=True)
if "failed" in sys.argv:
    print(ray_logs(), flush=True)
"""


def owner(folder: Path, *how: str) -> "subprocess.Popen[str]":
    """A process that has started a session."""
    process = subprocess.Popen(
        [sys.executable, "-c", OWN, str(folder), *how], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_a_session_goes_with_its_process(tmp_path: Path) -> None:
    process = owner(tmp_path / "session_1")
    assert names(tmp_path / "session_1") == {LOGS, f"{LOGS}/raylet.out", "sockets", MARK}
    process.communicate("", timeout=PATIENT_S)
    assert (process.returncode, names(tmp_path)) == (0, set())


def test_logs_that_a_message_names_stay(tmp_path: Path) -> None:
    owner(tmp_path / "session_1", "failed").communicate("", timeout=PATIENT_S)
    left = {"session_1", f"session_1/{LOGS}", f"session_1/{LOGS}/raylet.out", LATEST}
    assert names(tmp_path) == left
    owner(tmp_path / "session_2").communicate("", timeout=PATIENT_S)
    assert names(tmp_path) == left - {LATEST}, "for good, whoever starts next"


def test_the_next_start_removes_what_killed_ones_left_and_nothing_else(tmp_path: Path) -> None:
    killed, failed = owner(tmp_path / "session_1"), owner(tmp_path / "session_2", "failed")
    running = owner(tmp_path / "session_3")
    (tmp_path / "session_4" / LOGS).mkdir(parents=True)
    for process in (killed, failed):
        process.kill()
        process.communicate(timeout=PATIENT_S)
    owner(tmp_path / "session_5").communicate("", timeout=PATIENT_S)
    assert {path.name for path in tmp_path.glob("session_[0-9]")} == {"session_2", "session_3", "session_4"}
    assert {path.name for path in (tmp_path / "session_2").iterdir()} == {LOGS}
    assert (tmp_path / "session_3" / MARK).exists(), "of a process that lives"
    running.communicate("", timeout=PATIENT_S)
    assert not (tmp_path / "session_3").exists()


def test_sessions_of_others_are_not_marked(tmp_path: Path) -> None:
    (tmp_path / "session_1" / LOGS).mkdir(parents=True)
    keep_logs(tmp_path / "session_1" / LOGS)
    sweep(tmp_path)
    assert names(tmp_path) == {"session_1", f"session_1/{LOGS}"}
    assert not (tmp_path / "session_1" / KEEP).exists()


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize("failed", [False, True])
def test_a_local_ray_leaves_nothing_but_the_logs_of_a_failure(failed: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOCAL, *(["failed"] if failed else [])],
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENT_S,
    )
    folder, *logs = map(Path, done.stdout.split())
    assert folder.exists() == failed
    if failed:
        assert logs == [folder / LOGS] and any(logs[0].iterdir())
        assert [path.name for path in folder.iterdir()] == [LOGS]
        shutil.rmtree(folder)
