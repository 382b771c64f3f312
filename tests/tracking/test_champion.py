"""Who becomes champion when several decide at once: in memory in any order, with faults; and real processes."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from metaray.tracking import champion as succession
from metaray.tracking import registry_turns as turns
from metaray.tracking.champion import DECISION, crown_by_hand, settle
from metaray.tracking.promotion import Decision
from metaray.tracking.registry import ModelVersion, show
from metaray.tracking.registry_turns import turn
from metaray.tracking.server import MlflowServer
from tests.patience import PATIENT_S
from tests.tracking.mlflow_server import Server
from tests.tracking.registry_in_memory import ANYWHERE, Fault, Machine, Store, in_memory


def better(quality: dict[int, float], version: int, present: ModelVersion | None) -> Decision:
    """The policy in small: above zero for a first one, above the champion for a later one."""
    rival = 0.0 if present is None else quality[present.version]
    return Decision(quality[version] > rival, f"against {present and present.version}")


def contest(
    monkeypatch: pytest.MonkeyPatch, quality: dict[int, float], seed: int, fault: Fault | None = None
) -> tuple[Store, list[object]]:
    """Every version is decided on by a process of its own."""
    machine = Machine(seed, fault)
    store = in_memory(monkeypatch, machine, list(quality))
    monkeypatch.setattr(succession, "turn", partial(turn, clock=machine.clock, sleep=machine.sleep))
    processes = [partial(settle, ANYWHERE, "m", version, partial(better, quality, version)) for version in quality]
    return store, machine.run(processes)


@pytest.mark.parametrize("quality", [{1: 1.0, 2: 2.0}, {1: 2.0, 2: 1.0}, {1: 1.0, 2: 3.0, 3: 2.0}])
def test_two_uploads_at_once_end_with_the_better_one(
    quality: dict[int, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(40):
        store, ended = contest(monkeypatch, quality, seed)
        assert all(isinstance(decision, Decision) for decision in ended), ended
        best = max(quality, key=lambda version: quality[version])
        assert store.aliases == {"champion": str(best)}
        scores = [quality[version] for version in store.history]
        assert scores == sorted(scores), "never displaced by a worse one"
        first = [decision for decision in ended if isinstance(decision, Decision) and "None" in decision.reason]
        assert len(first) == 1, "one first version"
        assert store.tags == {}
        for version, decision in zip(quality, ended, strict=True):
            assert isinstance(decision, Decision)
            assert store.versions[version][DECISION].startswith("yes" if decision.promote else "no")


@pytest.mark.parametrize("quality", [{1: 1.0, 2: 2.0}, {1: 2.0, 2: 1.0}])
@pytest.mark.parametrize("kind", ["kill", "suspend"])
def test_one_dies_or_sleeps_in_the_middle(
    kind: str, quality: dict[int, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "DEAD_S", 2.0)
    for process in range(2):
        for request in range(30):
            store, ended = contest(monkeypatch, quality, request, Fault(process, request, kind))  # type: ignore[arg-type]
            survivors = [v for v, end in zip(quality, ended, strict=True) if isinstance(end, Decision)]
            assert survivors, ended
            where = f"{kind} of {process} before request {request}: {store}"
            assert quality[int(store.aliases["champion"])] >= max(quality[v] for v in survivors), where
            if kind == "kill":
                scores = [quality[version] for version in store.history]
                assert scores == sorted(scores), where


def test_what_is_promoted_by_hand_meanwhile_is_what_is_compared_with(monkeypatch: pytest.MonkeyPatch) -> None:
    quality = {1: 1.0, 2: 2.0, 3: 3.0}
    for seed in range(40):
        machine = Machine(seed)
        store = in_memory(monkeypatch, machine, list(quality))
        monkeypatch.setattr(succession, "turn", partial(turn, clock=machine.clock, sleep=machine.sleep))
        asked: list[int | None] = []

        def judge(
            present: ModelVersion | None,
            asked: list[int | None] = asked,
            quality: dict[int, float] = quality,
        ) -> Decision:
            asked.append(None if present is None else present.version)
            return better(quality, 2, present)

        machine.run([partial(settle, ANYWHERE, "m", 2, judge), partial(crown_by_hand, ANYWHERE, "m", 3)])
        assert store.aliases == {"champion": "3"}, "2 is no better than 3, whenever 3 came"
        assert store.versions[3][DECISION] == "yes, promoted by hand"


def test_by_hand_a_worse_one_may_be_champion_and_is_compared_with(monkeypatch: pytest.MonkeyPatch) -> None:
    quality = {1: 3.0, 2: 1.0, 3: 2.0}
    in_memory(monkeypatch, Machine(), list(quality))
    assert settle(ANYWHERE, "m", 1, partial(better, quality, 1)).promote
    assert crown_by_hand(ANYWHERE, "m", 2).version == 2
    assert crown_by_hand(ANYWHERE, "m", 2).aliases == ("champion",), "twice is harmless"
    assert settle(ANYWHERE, "m", 3, partial(better, quality, 3)) == (True, "against 2")


PROCESS = """
import sys, time
from pathlib import Path
from metaray.tracking.promotion import Decision
from metaray.tracking.champion import settle
from metaray.tracking.server import MlflowServer

server, version, folder = MlflowServer(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
times = 0

def judge(present):
    global times
    times += 1
    if times == 1:  # both have seen that there is no champion before either acts on it
        (folder / str(version)).touch()
        while not ((folder / "1").exists() and (folder / "2").exists()):
            time.sleep(0.01)
    rival = 0 if present is None else 10 - present.version
    return Decision(10 - version > rival, f"against {present and present.version}")

print(settle(server, sys.argv[4], version, judge).reason)
"""


def compete(server: MlflowServer, name: str, tmp_path: Path) -> list[str]:
    client = server.client
    client.create_registered_model(name)
    for _ in range(2):
        client.create_model_version(name, "s3://nowhere/at-all")
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, server.uri, version, str(tmp_path), name], stdout=subprocess.PIPE, text=True
        )
        for version in ("1", "2")
    ]
    said = [process.communicate(timeout=PATIENT_S)[0].strip() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    return said


def check(server: MlflowServer, name: str, said: list[str]) -> None:
    assert show(server, name).aliases == {"champion": 1}, "the better of the two"
    assert sorted(said) in (["against 1", "against None"], ["against 2", "against None"])
    assert server.client.get_registered_model(name).tags == {}


def test_two_real_processes_on_one_database(server: MlflowServer, tmp_path: Path) -> None:
    check(server, "raced", compete(server, "raced", tmp_path))


@pytest.mark.slow
def test_two_real_processes_on_one_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # uvicorn, which MLflow starts by name, lies beside this Python.
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    server = Server(tmp_path)
    server.start()
    try:
        at = MlflowServer(server.uri)
        check(at, "raced", compete(at, "raced", tmp_path))
    finally:
        server.kill()
