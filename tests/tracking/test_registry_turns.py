"""Turns: never two at once, whoever dies, whatever the clocks."""

from functools import partial

import pytest

from metaray.tracking import registry_turns as turns
from metaray.tracking.registry_turns import PREFIX, turn
from metaray.tracking.server import MlflowServer
from tests.tracking.registry_in_memory import ANYWHERE, Fault, Killed, Machine, in_memory


def critical(machine: Machine, inside: list[int], log: list[int], who: int) -> None:
    """Takes a turn; two requests long."""
    with turn(ANYWHERE, "m", clock=machine.clock, sleep=machine.sleep):
        assert not inside, "two at once"
        inside.append(who)
        machine.step()
        machine.step()
        inside.remove(who)
        log.append(who)


@pytest.mark.parametrize("count", [2, 3])
def test_one_at_a_time_in_any_order(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(60):
        machine, inside, log = Machine(seed), list[int](), list[int]()
        store = in_memory(monkeypatch, machine, [1])
        ended = machine.run([partial(critical, machine, inside, log, who) for who in range(count)])
        assert ended == [None] * count and sorted(log) == list(range(count))
        assert store.tags == {}


def test_who_dies_in_its_turn_or_before_is_waited_for_and_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "DEAD_S", 3.0)
    waited = 0
    for request in range(8):
        machine, inside, log = Machine(request, Fault(0, request, "kill")), list[int](), list[int]()
        store = in_memory(monkeypatch, machine, [1])

        said: list[str] = []

        def other(machine: Machine = machine, said: list[str] = said, log: list[int] = log) -> None:
            with turn(ANYWHERE, "m", say=said.append, clock=machine.clock, sleep=machine.sleep):
                log.append(1)

        ended = machine.run([partial(critical, machine, inside, log, 0), other])
        assert isinstance(ended[0], Killed) and ended[1] is None
        assert 1 in log
        assert said in ([], ["another process promotes a version of m: waiting for it, or 3 s if it died"])
        waited += len(said)
        assert len(store.tags) <= 1, "at most the tag of the dead, if it came later"
    assert waited


def test_one_that_was_taken_for_dead_gets_in_line_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "DEAD_S", 3.0)
    machine, log = Machine(0, Fault(0, 3, "suspend")), list[int]()
    store = in_memory(monkeypatch, machine, [1])
    machine.run([partial(critical, machine, [], log, who) for who in range(2)])
    assert log == [1, 0]
    assert store.tags == {}


def test_in_a_real_registry(server: MlflowServer) -> None:
    client = server.client
    client.create_registered_model("turns")
    with turn(server, "turns"):
        (key,) = client.get_registered_model("turns").tags
        assert key.startswith(PREFIX)
    assert client.get_registered_model("turns").tags == {}
