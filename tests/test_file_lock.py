"""Locks on files."""

import subprocess
import sys
import threading
from pathlib import Path

from metaray.file_lock import is_locked, lock
from tests.patience import PATIENT_S

HOLDER = """
import sys
from metaray.file_lock import lock
with open(sys.argv[1], "a") as file:
    print(lock(file), flush=True)
    sys.stdin.read()
"""


def test_one_holds_it_until_it_ends(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "True\n"
        with path.open("a") as file:
            assert not lock(file)
            holder.kill()
            assert lock(file, wait=True)


def test_who_waits_gets_it(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("a") as mine, (tmp_path / "lock").open("a") as other:
        got: list[bool] = []
        assert lock(mine) and not lock(other)
        waiting = threading.Thread(target=lambda: got.append(lock(other, wait=True)))
        waiting.start()
        mine.close()
        waiting.join(PATIENT_S)
        assert got == [True]


def test_an_onlooker_sees_it_and_keeps_nothing(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with path.open("a") as mine, path.open() as looks, path.open() as another, path.open("a") as other:
        assert not is_locked(looks) and lock(mine)
        assert is_locked(looks) and is_locked(another)
        mine.close()
        assert not is_locked(looks) and not is_locked(another)
        assert lock(other)
