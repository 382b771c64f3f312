"""Turns: one process at a time does something to a registered model, whatever the tracking store and the machine.

MLflow has no lock and no compare-and-set, only tags that are read and written. Lamport's bakery ("A new solution of
Dijkstra's concurrent programming problem", 1974) needs no more: each process has a tag of its own on the registered
model, says there that it is choosing (ticket 0), takes a ticket above all those it sees, and waits until nobody is
choosing and nobody has a lower ticket. Equal tickets go by the tags' names.

While it waits a process changes its tag at each look. A tag that another process saw unchanged for `DEAD_S`, by that
process's own clock, belongs to one that died, and is removed. So what is done in a turn must be short; and since a
process may sleep longer than that (a suspended laptop) and go on, it must be checked afterwards: see `succession`.
"""

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple, final

from metaray.tracking.server import MlflowServer

if TYPE_CHECKING:
    from mlflow import MlflowClient

PREFIX = "metaray.turn."
DEAD_S = 60.0
POLL_S = 0.5


class Claim(NamedTuple):
    """The contents of the tag by which a process waits for its turn.

    Attributes:
        ticket: Position in the queue; 0 while the process chooses one.
        beat: Number of times that the process has looked, as a sign of life.
    """

    ticket: int
    beat: int = 0


@contextmanager
def turn(
    server: MlflowServer,
    name: str,
    *,
    say: Callable[[str], None] = lambda text: None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[None]:
    """Within the block, this process alone changes a registered model; others wait for their turn.

    Args:
        server: MLflow server with the registry.
        name: Name of the registered model, which must exist.
        say: Function that is called once with a message if other processes come first.
        clock: Function that returns a time in seconds.
        sleep: Function that waits for a number of seconds.
    """
    queue = _Queue(server.client, name)
    try:
        queue.wait(say, clock, sleep)
        yield
    finally:
        queue.remove(queue.own)


@final
class _Queue:
    """Those who want a turn, and this process among them."""

    def __init__(self, client: "MlflowClient", name: str) -> None:
        self._client, self._name = client, name
        self.own = f"{PREFIX}{uuid.uuid4().hex}"

    def wait(self, say: Callable[[str], None], clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
        """Return when it is this process's turn."""
        seen: dict[str, tuple[Claim, float]] = {}
        mine = self._choose()
        while True:
            claims = self._claims()
            if self.own not in claims:  # it slept, and was taken for dead
                mine = self._choose()
                continue
            ahead = {key: claim for key, claim in claims.items() if (claim.ticket, key) < (mine.ticket, self.own)}
            if not ahead:
                return
            if not mine.beat:
                say(f"another process promotes a version of {self._name}: waiting for it, or {DEAD_S:g} s if it died")
            for key, claim in ahead.items():
                last, since_s = seen.get(key, (None, 0.0))
                if last != claim:
                    seen[key] = (claim, clock())
                elif clock() - since_s > DEAD_S:
                    self.remove(key)
            mine = mine._replace(beat=mine.beat + 1)
            self._say(mine)
            sleep(POLL_S)

    def remove(self, key: str) -> None:
        """Take a tag away, if it is there."""
        self._client.delete_registered_model_tag(self._name, key)

    def _choose(self) -> Claim:
        self._say(Claim(0))
        others = (claim.ticket for key, claim in self._claims().items() if key != self.own)
        mine = Claim(1 + max(others, default=0))
        self._say(mine)
        return mine

    def _say(self, claim: Claim) -> None:
        self._client.set_registered_model_tag(self._name, self.own, f"{claim.ticket} {claim.beat}")

    def _claims(self) -> dict[str, Claim]:
        tags = self._client.get_registered_model(self._name).tags
        return {key: Claim(*map(int, value.split())) for key, value in tags.items() if key.startswith(PREFIX)}
