"""Events and who hears them."""

from metaray.records.events import Event, Fanout, Listener, entering


class Memory(Listener):
    def __init__(self, log: list[str], name: str) -> None:
        self._log, self._name = log, name

    def on_event(self, event: Event) -> None:
        self._log.append(f"{self._name} {event.text}")

    def close(self) -> None:
        self._log.append(f"{self._name} closed")


def test_a_fanout_tells_all_in_order() -> None:
    log: list[str] = []
    fanout = Fanout(Memory(log, name) for name in "ab")
    fanout.on_event(entering("checks"))
    fanout.on_event(entering("workers"))
    fanout.close()
    assert log == ["a checks", "b checks", "a workers", "b workers", "a closed", "b closed"]


def test_entering_a_phase() -> None:
    event = entering("checks")
    assert (event.kind, event.step, event.values, event.text) == ("phase", 0, {}, "checks") and event.time_s > 1e9
