"""The driver's eyes on a run: a real coordinator, and Ray Train, workers and samplers that do as they are told."""

from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import GetTimeoutError, RayActorError

from metaray.distributed import supervisor as module
from metaray.distributed.coordinator import Coordinator
from metaray.distributed.supervisor import FRESH_S, LEAVE_S, POLL_S, START_WITHIN_S, TELL_AFTER_S, Supervisor
from metaray.errors import Diverged, RunFailed, RunStopped
from metaray.records.events import ENDINGS, Event, Listener
from metaray.training.placement import Placement, Workers
from metaray.training.recovery import REDUCING, RESTARTS, WAITING, Failure

HANG_S = 20.0
PLACEMENT = Placement(Workers.parse("2"), 2, 0.5, "cpu", None, HANG_S)
DIED = RuntimeError("the controller died")


class Method:
    """A remote method that answers at once."""

    def __init__(self, act: Callable[..., Any]) -> None:
        self.remote = act


class Handle:
    """Of the coordinator; counts what is asked of it."""

    def __init__(self, coordinator: Coordinator) -> None:
        self.coordinator, self.asked = coordinator, list[str]()

    def __getattr__(self, name: str) -> Method:
        def act(*arguments: Any, **named: Any) -> Any:
            self.asked.append(name)
            return getattr(self.coordinator, name)(*arguments, **named)

        return Method(act)


class Actor:
    """A worker or a sampler: alive, silent or dead."""

    def __init__(self, name: str, state: str = "alive") -> None:
        self.name, self.state = name, state
        self.__ray_ready__ = Method(lambda: self)


class Ray:
    """What stands for Ray; time passes only while something is waited for."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now_s = 1000.0
        self.killed: list[tuple[str, bool]] = []
        patch.setattr(module.time, "monotonic", lambda: self.now_s)
        for name in ("get", "wait", "kill", "cluster_resources", "available_resources"):
            patch.setattr(module.ray, name, getattr(self, name))

    def get(self, ref: Any, *, timeout: float | None = None) -> Any:
        if not isinstance(ref, Actor) or ref.state == "alive":
            return ref
        if ref.state == "dead":
            raise RayActorError
        assert timeout is not None, "would wait for ever"
        raise GetTimeoutError

    def wait(self, refs: list[Actor], *, timeout: float) -> tuple[list[Actor], list[Actor]]:
        done = [ref for ref in refs if ref.state == "alive"]
        return done, [ref for ref in refs if ref not in done]

    def kill(self, actor: Actor, *, no_restart: bool = True) -> None:
        self.killed.append((actor.name, no_restart))

    def available_resources(self) -> dict[str, float]:
        return {"CPU": 0.25}

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 0.5}


class Memory(Listener):
    def __init__(self) -> None:
        self.events: list[Event] = []

    def on_event(self, event: Event) -> None:
        self.events.append(event)

    def close(self) -> None:
        """Nothing to deliver."""

    def notes(self) -> list[str]:
        return [event.text for event in self.events if event.kind == "note"]


class Fit:
    """A Ray Train run: does one thing at each look, then ends; or before that, where `over` says so."""

    def __init__(
        self,
        ray: Ray,
        acts: Iterable[Callable[[], object]] = (),
        error: BaseException | None = None,
        over: Callable[[], bool] = lambda: False,
    ) -> None:
        self._ray, self._acts, self.error, self._over = ray, list(acts), error, over

    def is_alive(self) -> bool:
        return bool(self._acts) and not self._over()

    def join(self, timeout: float | None = None) -> None:
        assert timeout == POLL_S
        self._ray.now_s += timeout
        self._acts.pop(0)()


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Ray:
    monkeypatch.setattr(module, "_worker_processes", list)
    return Ray(monkeypatch)


class Stage:
    """A run of two workers, and a watch over it."""

    def __init__(self, ray: Ray, samplers: tuple[Actor, ...] = ()) -> None:
        self.ray, self.coordinator, self.memory = ray, Coordinator(), Memory()
        self.handle = Handle(self.coordinator)
        self.watch = Supervisor(self.handle, self.memory, PLACEMENT, samplers)
        self.tokens: dict[int, int] = {}

    def arrive(self, *workers: Actor) -> None:
        for rank, worker in enumerate(workers):
            self.tokens[rank] = self.coordinator.arrive(rank, worker)
        assert self.coordinator.begin(len(workers))

    def post(self, *events: Event) -> Callable[[], object]:
        return lambda: self.coordinator.post(self.tokens.get(0, 0), list(events))

    def heartbeats(self, seconds: float, *doings: str) -> list[Callable[[], object]]:
        """Each rank says the same, again and again, for so long; it gets nowhere."""

        def say() -> None:
            for rank, doing in enumerate(doings):
                if doing:
                    self.coordinator.heartbeat(rank, self.tokens[rank], doing, 1)

        return [say] * round(seconds / POLL_S)

    def quiet(self, seconds: float) -> list[Callable[[], object]]:
        return [lambda: None] * round(seconds / POLL_S)

    def run(self, *fits: Fit, stop: Callable[[], bool] = lambda: False) -> int:
        """Returns how often Ray Train was started."""
        left = list(fits)
        try:
            self.watch.run(lambda: left.pop(0), stop)
        finally:
            self.started = len(fits) - len(left)
        return self.started


@pytest.fixture
def stage(ray: Ray) -> Stage:
    return Stage(ray)


def event(kind: Any, step: int = 0, text: str = "") -> Event:
    return Event(kind, step, {}, 0.0, text)


def test_all_is_shown_and_the_end_is_the_end(stage: Stage, ray: Ray) -> None:
    acts = [stage.post(event("phase", text="training")), stage.post(event("step", 1)), stage.post(event("step", 2))]
    assert stage.run(Fit(ray, acts)) == 1
    assert [(e.kind, e.step) for e in stage.memory.events] == [("phase", 0), ("step", 1), ("step", 2)]
    assert "fail" not in stage.handle.asked and ray.killed == []


def test_ray_train_is_started_again_where_it_dies(stage: Stage, ray: Ray) -> None:
    workers = [lambda: stage.arrive(Actor("a"), Actor("b"))]
    assert stage.run(Fit(ray, workers, DIED), Fit(ray, workers, DIED), Fit(ray, workers)) == 3
    assert stage.memory.notes() == [
        f"Ray Train ended with RuntimeError: the controller died: starting again with 2 workers (attempt {attempt})"
        for attempt in (2, 3)
    ]


@pytest.mark.parametrize("comes_up", [True, False])
def test_ray_train_is_not_started_again_for_ever(comes_up: bool, stage: Stage, ray: Ray) -> None:
    workers = [lambda: stage.arrive(Actor("a"), Actor("b"))] if comes_up else []
    fits = [Fit(ray, workers, DIED) for _ in range(3 * RESTARTS)]
    with pytest.raises(
        RunFailed, match=rf"^gave up after {RESTARTS + 1} failures .* RuntimeError: the contr"
    ) as caught:
        stage.run(*fits)
    assert stage.started == RESTARTS + 1 and caught.value.__cause__ is DIED


def test_workers_that_never_meet_end_the_run(stage: Stage, ray: Ray) -> None:
    fit = Fit(
        ray,
        [*[lambda: stage.coordinator.report_not_joined("cannot meet")] * (RESTARTS + 1), *stage.quiet(10 * LEAVE_S)],
    )
    with pytest.raises(RunFailed, match=rf"^gave up after {RESTARTS + 1} failures .* cannot meet$"):
        stage.run(fit)
    assert fit.is_alive()  # Ray Train would go on trying
    assert stage.memory.notes() == ["cannot meet: trying again"] * RESTARTS


def test_ray_train_that_gets_ahead_each_time_is_started_again(stage: Stage, ray: Ray) -> None:
    def acts(step: int) -> list[Callable[[], object]]:
        return [lambda: stage.arrive(Actor("a")), lambda: stage.post(event("checkpoint", step))()]

    count = 3 * RESTARTS
    assert stage.run(*[Fit(ray, acts(step), DIED) for step in range(count)], Fit(ray)) == count + 1


@pytest.mark.parametrize(("kind", "raised"), [("failed", RunFailed), ("stopped", RunStopped), ("diverged", Diverged)])
@pytest.mark.parametrize("error", [None, DIED])
def test_an_ending_is_raised(
    kind: str, raised: type[Exception], error: Exception | None, stage: Stage, ray: Ray
) -> None:
    assert ENDINGS[kind] is raised  # type: ignore[index]
    acts = [stage.post(event("step", 3)), stage.post(event(kind, 3, "this is why"), event("note", 3, "afterwards"))]
    with pytest.raises(raised, match="^this is why$") as caught:
        stage.run(Fit(ray, acts, error), Fit(ray))
    assert type(caught.value) is raised and stage.started == 1
    assert [e.kind for e in stage.memory.events] == ["step", "note"]


@pytest.mark.parametrize("sign", [event("phase", text="training"), event("step", 5)])
@pytest.mark.parametrize("error", [None, DIED])
def test_an_ending_of_a_rank_0_that_was_replaced_is_forgotten(
    sign: Event, error: Exception | None, stage: Stage, ray: Ray
) -> None:
    """It said so, was lost before all had heard it, and the next attempt got over it."""
    fits = [Fit(ray, [stage.post(event("failed", 4, "disk full")), stage.post(sign)], error)]
    assert stage.run(*fits, *([Fit(ray)] if error else [])) == (2 if error else 1)
    assert stage.memory.events == [sign]


def test_an_ending_after_a_new_attempt_counts(stage: Stage, ray: Ray) -> None:
    first, new, second = event("failed", 4, "first"), event("phase", 4, "training"), event("stopped", 4, "second")
    with pytest.raises(RunStopped, match="second"):
        stage.run(Fit(ray, [stage.post(first, new, second)]))


def test_the_wish_to_stop_reaches_the_workers_even_past_a_new_board(stage: Stage, ray: Ray) -> None:
    heard: list[bool] = []

    def work() -> None:
        stage.coordinator.heartbeat(0, stage.tokens[0], "computing", len(heard))
        heard.append(stage.coordinator.post(stage.tokens[0], []))

    def forget() -> None:
        stage.coordinator._stop = False  # as a coordinator that Ray had to restart

    stage.arrive(Actor("a"))
    acts = [work, work, forget, work, stage.post(event("stopped", 9, "after step 9"))]
    with pytest.raises(RunStopped, match="after step 9"):
        stage.run(Fit(ray, acts), stop=lambda: True)
    assert heard == [True, True, True]


def test_a_stop_while_no_worker_lives(stage: Stage, ray: Ray) -> None:
    before_s = ray.now_s
    with pytest.raises(RunStopped, match="while no worker was running"):
        stage.run(Fit(ray, stage.quiet(1000)), stop=lambda: True)
    assert FRESH_S < ray.now_s - before_s < FRESH_S + 1


def test_a_stop_waits_for_workers_that_live(stage: Stage, ray: Ray) -> None:
    stage.arrive(Actor("a"))
    acts = [*stage.heartbeats(HANG_S - 1, "computing"), stage.post(event("stopped", 7, "after step 7"))]
    assert HANG_S - 1 > FRESH_S
    with pytest.raises(RunStopped, match="after step 7"):
        stage.run(Fit(ray, acts), stop=lambda: True)
    assert ray.killed == []


@pytest.mark.parametrize("state", ["alive", "silent"])
def test_a_hung_worker_is_reported_and_killed(state: str, stage: Stage, ray: Ray) -> None:
    stage.arrive(Actor("a"), Actor("b", state))
    stage.run(Fit(ray, stage.heartbeats(HANG_S + 1, REDUCING, "computing")))
    assert ray.killed == [("b", True)]
    assert stage.coordinator.begin(2)
    (note,) = [e.text for e in stage.coordinator.look().events]
    assert note.startswith("worker 1 hangs: no progress for 20 s (last seen computing): starting again")


def test_a_worker_that_is_dead_already_is_no_hung_one(stage: Stage, ray: Ray) -> None:
    stage.arrive(Actor("a"), Actor("b", "dead"))
    before_s = ray.now_s
    acts = [*stage.heartbeats(1, REDUCING, "computing"), *stage.heartbeats(2 * HANG_S, REDUCING, "")]
    stage.run(Fit(ray, acts, over=lambda: "forget" in stage.handle.asked))
    assert HANG_S < ray.now_s - before_s < HANG_S + 2
    assert ray.killed == [] and "report" not in stage.handle.asked
    assert set(stage.coordinator.look().heartbeats) == {0}, "its silence is known"


def test_workers_that_get_ahead_are_left_alone(stage: Stage, ray: Ray) -> None:
    stage.arrive(Actor("a"))
    marks = iter(range(1000))
    work = [lambda: stage.coordinator.heartbeat(0, stage.tokens[0], "computing", next(marks))] * round(
        3 * HANG_S / POLL_S
    )
    stage.run(Fit(ray, work))
    assert ray.killed == [] and stage.memory.events == []


def test_a_silent_sampler_is_restarted_and_no_worker(ray: Ray) -> None:
    stage = Stage(ray, (Actor("s0"), Actor("s1", "silent")))
    stage.arrive(Actor("a"), Actor("b"))
    stage.run(Fit(ray, stage.heartbeats(HANG_S + 1, WAITING, REDUCING)))
    assert ray.killed == [("s1", False)] and stage.memory.notes() == ["sampler 1 hangs: restarting it"]
    assert "report" not in stage.handle.asked
    # The worker that waited has its time anew.
    assert stage.coordinator.look().heartbeats[0].for_s < 2


def test_workers_that_wait_though_all_samplers_answer(ray: Ray) -> None:
    stage = Stage(ray, (Actor("s0"), Actor("s1")))
    stage.arrive(Actor("a"), Actor("b"))
    stage.run(Fit(ray, stage.heartbeats(HANG_S + 1, WAITING, REDUCING)))
    assert ray.killed == [("a", True)]


def test_a_busy_worker_is_blamed_before_the_samplers(ray: Ray) -> None:
    stage = Stage(ray, (Actor("s0", "silent"),))
    stage.arrive(Actor("a"), Actor("b"))
    stage.run(Fit(ray, stage.heartbeats(2 * HANG_S, WAITING, "computing"), over=lambda: bool(ray.killed)))
    assert ray.killed == [("b", True)]


def test_no_room_is_told_once(stage: Stage, ray: Ray) -> None:
    stage.run(Fit(ray, stage.quiet(2 * TELL_AFTER_S)))
    assert stage.memory.notes() == [
        "no worker process is there yet: Ray looks for room for 2 workers x 0.5 CPUs (the cluster has 0.5, 0.25 of "
        "them free)"
    ]


def test_workers_that_take_long_to_start_are_told_of_without_alarm(
    stage: Stage, ray: Ray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_worker_processes", lambda: [{"pid": 1, "node_id": "a"}, {"pid": 2, "node_id": "a"}])
    stage.run(Fit(ray, stage.quiet(2 * TELL_AFTER_S)))
    assert stage.memory.notes() == [
        "2 worker processes are starting: each imports torch and joins the others, which takes longer on a busy machine"
    ]


def test_the_end_says_what_the_workers_raised(stage: Stage, ray: Ray) -> None:
    where = {"told": "own.py:3: in f", "traceback": "worker 1:\nTraceback ..."}
    stage.arrive(Actor("a"), Actor("b"))
    stage.coordinator.report(Failure("exception", 0, "worker 1: KeyError", **where))
    stage.coordinator.report(Failure("exception", 0, "worker 0: KeyError", "elsewhere", "worker 0:\nTraceback ..."))
    stage.arrive(Actor("a"), Actor("b"))
    stage.coordinator.report(Failure("exception", 0, "worker 1: KeyError", **where))
    assert not stage.coordinator.begin(2)
    with pytest.raises(RunFailed, match="gave up after 2 failures") as caught:
        stage.run(Fit(ray, [lambda: None]))
    assert caught.value.told == "own.py:3: in f"
    tracebacks = caught.value.tracebacks
    assert [line for line in tracebacks.splitlines() if "Attempt" in line] == [
        "Attempt 1, worker 0:",
        "Attempt 1, worker 1:",
        "Attempt 2, worker 1:",
    ]
    assert "Ray's own logs: " in tracebacks


def test_of_workers_that_were_killed_rays_logs_know_more(stage: Stage, ray: Ray) -> None:
    with pytest.raises(RunFailed) as caught:
        stage.run(*(Fit(ray, [lambda: None], error=DIED) for _ in range(RESTARTS + 1)))
    assert caught.value.told.startswith("Ray's own logs: ")


def test_no_room_is_told_again_after_workers_were_there(stage: Stage, ray: Ray) -> None:
    stage.arrive(Actor("a"), Actor("b"))
    seconds = TELL_AFTER_S + FRESH_S + 1

    def gone() -> None:
        for rank in (0, 1):
            stage.coordinator.forget(rank)

    acts = [*stage.quiet(seconds), *stage.heartbeats(1, "computing", "computing"), gone, *stage.quiet(seconds)]
    stage.run(Fit(ray, acts))
    assert [note.partition(":")[0] for note in stage.memory.notes()] == ["no worker process is there yet"] * 2


def test_processes_that_do_not_start_are_killed(stage: Stage, ray: Ray, monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[tuple[int, float]] = []
    began_s = ray.now_s
    monkeypatch.setattr(module, "_worker_processes", lambda: [{"pid": 7, "node_id": "x"}, {"pid": 8, "node_id": "y"}])
    monkeypatch.setattr(module, "_kill", lambda process: killed.append((process["pid"], ray.now_s - began_s)))
    stage.run(Fit(ray, stage.quiet(2.5 * START_WITHIN_S)))
    assert [pid for pid, _ in killed] == [7, 8, 7, 8]
    assert all(abs(at_s - START_WITHIN_S * (1 + i // 2)) < 1 for i, (_, at_s) in enumerate(killed))
    assert "worker process 8 does not get ahead with starting; killing it" in stage.memory.notes()


def test_a_new_start_has_its_time(stage: Stage, ray: Ray) -> None:
    """The seconds until Ray Train died are not those in which no worker came up after it."""
    stage.run(Fit(ray, stage.quiet(TELL_AFTER_S - 1), DIED), Fit(ray, stage.quiet(TELL_AFTER_S - 1)))
    assert stage.memory.notes() == []


def test_worker_processes_are_those_of_its_own_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other clusters may run on the same machine."""
    here = SimpleNamespace(get_actor_id=lambda: None, get_job_id=lambda: "01", gcs_address="127.0.0.1:1234")
    asked: list[dict[str, Any]] = []

    def listed(**options: Any) -> list[Any]:
        asked.append(options)
        return [SimpleNamespace(pid=pid, node_id="a", state=state) for pid, state in ((0, "PENDING"), (7, "ALIVE"))]

    monkeypatch.setattr("ray.get_runtime_context", lambda: here)
    monkeypatch.setattr("metaray.distributed.supervisor.list_actors", listed)
    assert module._worker_processes() == [{"pid": 7, "node_id": "a"}]
    assert asked[0]["address"] == "127.0.0.1:1234"
