"""The coordinator: a small actor beside the driver, through which it and the workers know of one another."""

import secrets
import time
from typing import Any, NamedTuple

import ray

from metaray.records.events import Event, Listener
from metaray.training.recovery import Explanation, Failure, Heartbeat, given_up, next_action

POST_EVERY_S = 0.25
MOST_TRACEBACKS = 64


class CoordinatorView(NamedTuple):
    """What the driver reads from the coordinator.

    Attributes:
        events: Since it last looked.
        heartbeats: Heartbeat of each rank of the present attempt.
        workers: Their actors, by rank.
    """

    events: list[Event]
    heartbeats: dict[int, Heartbeat]
    workers: dict[int, Any]


class _Sign(NamedTuple):
    """The last sign of life of a rank, and since when it has not got ahead."""

    doing: str
    marks: int
    ahead_s: float
    heard_s: float


class Coordinator:
    """Events on their way from rank 0 to the driver, its wish to stop on its way back, and the run's failures.

    It outlives the workers, so it is what counts the attempts.
    """

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._stop = False
        self._saved_step = 0
        self._attempts = self._world_size = 0
        self._failures: list[Failure] = []
        self._tracebacks: dict[tuple[int, str], str] = {}
        self._reported: Failure | None = None
        self._counted = False
        self._workers: dict[int, Any] = {}
        self._signs: dict[int, _Sign] = {}
        self._tokens: dict[int, int] = {}

    def arrive(self, rank: int, worker: Any) -> int:
        """A worker of a new attempt is there; what it says counts until another of its rank arrives.

        Returns:
            A token that it shows with all that it says.
        """
        # Random: a coordinator that Ray had to restart must not give an old worker's token to a new one.
        self._workers[rank], self._tokens[rank] = worker, secrets.randbits(53)
        self._signs.pop(rank, None)
        return self._tokens[rank]

    def begin(self, world_size: int) -> bool:
        """A group of workers is complete, and asks whether to train; if not, the coordinator says why."""
        grown = world_size > self._world_size and self._reported is None
        self._attempts, self._world_size, before = self._attempts + 1, world_size, self._world_size
        self._workers = {rank: worker for rank, worker in self._workers.items() if rank < world_size}
        self._signs = {rank: sign for rank, sign in self._signs.items() if rank < world_size}
        if self._attempts == 1 and not self._counted:
            return True
        if grown and not self._counted:
            self._say("note", f"the cluster has more room: {before} -> {world_size} workers")
            return True
        if not self._counted:
            given_up = self._count(self._reported or Failure("worker lost", 0, "a worker or its node is gone"))
            if given_up:
                self._say("failed", given_up)
                return False
        failure, self._reported, self._counted = self._failures[-1], None, False
        count = "1 worker" if world_size == 1 else f"{world_size} workers"
        self._say("note", f"{failure.text}: starting again with {count} (attempt {self._attempts})")
        return True

    def fail(self, failure: Failure) -> str:
        """All workers are gone, and Ray Train with them; returns why another attempt makes no sense, if so."""
        self._counted = True
        return self._count(self._reported or failure)

    def _count(self, failure: Failure) -> str:
        self._failures.append(failure._replace(step=self._saved_step))
        return given_up(self._failures) if next_action(self._failures) == "raise" else ""

    def report(self, failure: Failure) -> None:
        """Why the present attempt is about to end; the first report stands, the tracebacks of all are kept."""
        self._reported = self._reported or failure
        if failure.traceback and len(self._tracebacks) < MOST_TRACEBACKS:
            self._tracebacks[self._attempts, failure.text] = failure.traceback

    def explain(self) -> Explanation:
        """What is known of the failures besides their messages."""
        last = self._failures[-1] if self._failures else self._reported
        tracebacks = "\n".join(f"Attempt {n}, {text}" for (n, _), text in sorted(self._tracebacks.items()))
        return Explanation(tracebacks=tracebacks) if last is None else Explanation(last.kind, last.told, tracebacks)

    def report_not_joined(self, why: str) -> None:
        """The workers of an attempt did not come together; Ray Train, which says nothing of it, tries again."""
        given_up = self._count(Failure("worker lost", 0, why))
        self._say("failed" if given_up else "note", given_up or f"{why}: trying again")

    def heartbeat(self, rank: int, token: int, doing: str, marks: int) -> None:
        """What a rank does, and how many signs of life it has given."""
        if token != self._tokens.get(rank, token):
            return
        now, before = time.monotonic(), self._signs.get(rank)
        ahead_s = now if before is None or before.marks != marks else before.ahead_s
        self._signs[rank] = _Sign(doing, marks, ahead_s, now)

    def post(self, token: int, events: list[Event]) -> bool:
        """Add rank 0's events; returns whether the run should stop."""
        if token != self._tokens.get(0, token):
            return True  # from a rank 0 that was thought dead: another has taken over
        self._saved_step = max([self._saved_step, *(e.step for e in events if e.kind == "checkpoint")])
        self._events.extend(events)
        return self._stop

    def look(self, *, stop: bool = False) -> CoordinatorView:
        """What is new since the last call, and how the ranks are; `stop` asks the run to stop after a checkpoint."""
        self._stop = self._stop or stop
        events, self._events = self._events, []
        now = time.monotonic()
        heartbeats = {
            rank: Heartbeat(s.doing, now - s.ahead_s, now - s.heard_s) for rank, s in sorted(self._signs.items())
        }
        return CoordinatorView(events, heartbeats, dict(self._workers))

    def forget(self, rank: int) -> None:
        """A rank was killed: its silence is known."""
        self._signs.pop(rank, None)

    def _say(self, kind: Any, text: str) -> None:
        self._events.append(Event(kind, self._saved_step, {}, time.time(), text))


class CoordinatorListener(Listener):
    """Posts events to a `Coordinator` actor a few times a second, never waiting for it.

    Args:
        coordinator: The actor's handle.
        token: Token of this worker, from `Coordinator.arrive`.
    """

    def __init__(self, coordinator: Any, token: int) -> None:
        self._coordinator, self._token = coordinator, token
        self._pending: list[Event] = []
        self._posted_s = 0.0
        self._reply: Any = None
        self._stop = False

    def on_event(self, event: Event) -> None:
        """Keep it for the next post."""
        self._pending.append(event)
        if event.kind not in ("step", "metrics") or time.monotonic() - self._posted_s >= POST_EVERY_S:
            self._post()

    def should_stop(self) -> bool:
        """What the coordinator said last."""
        if self._reply is not None and ray.wait([self._reply], timeout=0)[0]:
            self._stop, self._reply = ray.get(self._reply), None
        return self._stop

    def close(self) -> None:
        """Deliver what is left, and wait for it."""
        ray.get(self._post())

    def _post(self) -> Any:
        self.should_stop()
        reply = self._coordinator.post.remote(self._token, self._pending)
        # Of several replies on their way the oldest counts: taking the newest, a slow coordinator would not be heard.
        self._reply = reply if self._reply is None else self._reply
        self._pending, self._posted_s = [], time.monotonic()
        return reply
