"""A registry in memory, between whose requests a test may stop, kill or suspend the processes that use it."""

import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Literal

import pytest

from metaray.tracking.server import MlflowServer

ANYWHERE = MlflowServer("")
"""What is asked for does not matter: it is in memory."""


class Killed(BaseException):
    """What a request raises in a process that was killed: nothing of it is done any more, `finally` or not."""


class Page(list[Any]):
    """A page of a listing, the last one."""

    token = ""


@dataclass
class Fault:
    """Something that happens to one process before its n-th request.

    Attributes:
        process: to which.
        request: before which.
        kind: "kill", or "suspend" until all others are done.
    """

    process: int
    request: int
    kind: Literal["kill", "suspend"]


@dataclass
class Store:
    """What MLflow holds of one registered model, and `MlflowClient` of it: each request one step of `machine`.

    Attributes:
        aliases: version by alias, as text.
        tags: of the model.
        versions: their tags.
        history: versions that the champion alias was set to.
    """

    machine: "Machine"
    aliases: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    versions: dict[int, dict[str, str]] = field(default_factory=dict)
    history: list[int] = field(default_factory=list)

    def search_registered_models(self, **_: Any) -> Page:
        self.machine.step()
        return Page([self._model()])

    def get_registered_model(self, name: str) -> Any:
        self.machine.step()
        return self._model()

    def search_model_versions(self, *_: Any, **__: Any) -> Page:
        self.machine.step()
        return Page(
            SimpleNamespace(name="m", version=v, run_id=None, creation_timestamp=0, tags=dict(tags), source="")
            for v, tags in self.versions.items()
        )

    def set_registered_model_alias(self, name: str, alias: str, version: str) -> None:
        self.machine.step()
        self.aliases[alias] = version
        self.history.append(int(version))

    def set_registered_model_tag(self, name: str, key: str, value: str) -> None:
        self.machine.step()
        self.tags[key] = value

    def delete_registered_model_tag(self, name: str, key: str) -> None:
        self.machine.step()
        self.tags.pop(key, None)

    def set_model_version_tag(self, name: str, version: str, key: str, value: str) -> None:
        self.machine.step()
        self.versions[int(version)][key] = value

    def delete_model_version_tag(self, name: str, version: str, key: str) -> None:
        self.machine.step()
        self.versions[int(version)].pop(key, None)

    def _model(self) -> Any:
        return SimpleNamespace(name="m", aliases=dict(self.aliases), tags=dict(self.tags))


class Machine:
    """Runs functions as processes, one request at a time, in an order drawn from a seed.

    Args:
        seed: of the order.
        fault: that happens to one of them.
    """

    def __init__(self, seed: int = 0, fault: Fault | None = None) -> None:
        self._draw, self._fault = random.Random(seed), fault
        self._go: list[threading.Semaphore] = []
        self._back = threading.Semaphore(0)
        self._who = threading.local()
        self.requests: list[int] = []
        self.ended: list[object] = []
        self.time_s = 0.0

    def step(self) -> None:
        """Where a request begins; the order may let others go first."""
        who = getattr(self._who, "process", None)
        if who is None:
            return
        fault = self._fault
        if fault is not None and (fault.kind, fault.process) == ("kill", who) and self.requests[who] >= fault.request:
            raise Killed
        self._back.release()
        self._go[who].acquire()
        self.requests[who] += 1

    def clock(self) -> float:
        """Seconds by the clock of the process that asks: no two agree."""
        return self.time_s + 1e6 * float(getattr(self._who, "process", 0))

    def sleep(self, seconds: float) -> None:
        """Time passes for all."""
        self.time_s += seconds
        self.step()

    def run(self, processes: Sequence[Callable[[], object]]) -> list[object]:
        """What each returned or raised, once all have ended."""
        self._go = [threading.Semaphore(0) for _ in processes]
        self.requests, self.ended = [0] * len(processes), [None] * len(processes)
        alive = set(range(len(processes)))

        def body(who: int) -> None:
            self._who.process = who
            self._go[who].acquire()
            try:
                self.ended[who] = processes[who]()
            except BaseException as error:  # noqa: BLE001 - the test looks at it
                self.ended[who] = error
            alive.discard(who)
            self._back.release()

        threads = [threading.Thread(target=body, args=(who,), daemon=True) for who in sorted(alive)]
        for thread in threads:
            thread.start()
        while alive:
            who = self._draw.choice(sorted(self._awake(alive)))
            self._go[who].release()
            assert self._back.acquire(timeout=30), "a process hangs between requests"
            assert sum(self.requests) < 20_000, "they wait for one another for ever"
        return self.ended

    def _awake(self, alive: set[int]) -> set[int]:
        fault = self._fault
        if fault is None or fault.kind == "kill" or self.requests[fault.process] < fault.request:
            return alive
        return alive - {fault.process} or alive


def in_memory(monkeypatch: pytest.MonkeyPatch, machine: Machine, versions: Sequence[int]) -> Store:
    """A model "m" with such versions, which the tracking stage uses whatever the URI."""
    store = Store(machine, versions={version: {} for version in versions})
    monkeypatch.setattr("metaray.tracking.server.open_client", lambda uri: store)
    return store
