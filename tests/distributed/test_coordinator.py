"""The coordinator between rank 0 and the driver, without a cluster."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from metaray.distributed import coordinator as module
from metaray.distributed.coordinator import Coordinator, CoordinatorListener
from metaray.records.events import Event
from metaray.training.recovery import RESTARTS, Failure, Heartbeat

TOKEN = 7
"""Of workers that this coordinator has not seen arrive, as after Ray had to restart it: they count."""


class Local:
    """An actor handle that answers at once."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        self.posts = 0

    @property
    def post(self) -> "Local":
        return self

    def remote(self, token: int, events: list[Event]) -> bool:
        self.posts += 1
        return self._coordinator.post(token, events)


@pytest.fixture
def coordinator(monkeypatch: pytest.MonkeyPatch) -> Coordinator:
    def wait(refs: list[Any], timeout: float) -> tuple[list[Any], list[Any]]:
        return refs, []

    def get(ref: Any) -> Any:
        return ref

    monkeypatch.setattr("ray.wait", wait)
    monkeypatch.setattr("ray.get", get)
    return Coordinator()


@pytest.fixture
def tick(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Move the clock on by so many seconds."""
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])

    def tick(seconds: float) -> None:
        now[0] += seconds

    return tick


def step(number: int) -> Event:
    return Event("step", number, {}, 0.0)


def checkpoint(number: int) -> Event:
    return Event("checkpoint", number, {}, 0.0)


def said(coordinator: Coordinator, kind: str = "note") -> list[str]:
    return [event.text for event in coordinator.look().events if event.kind == kind]


def test_events_arrive_once_and_in_order(coordinator: Coordinator) -> None:
    coordinator.post(TOKEN, [step(1), step(2)])
    coordinator.post(TOKEN, [step(3)])
    assert [e.step for e in coordinator.look().events] == [1, 2, 3] and coordinator.look().events == []


def test_the_first_attempt_is_none_too_many(coordinator: Coordinator) -> None:
    assert coordinator.begin(2) and coordinator.look().events == []


def test_a_lost_worker_is_noted_and_replaced(coordinator: Coordinator) -> None:
    coordinator.begin(2)
    coordinator.post(TOKEN, [checkpoint(4)])
    coordinator.look()
    assert coordinator.begin(2)
    (event,) = coordinator.look().events
    assert (event.kind, event.step) == ("note", 4)
    assert event.text == "a worker or its node is gone: starting again with 2 workers (attempt 2)"
    assert coordinator.begin(1)
    assert said(coordinator) == ["a worker or its node is gone: starting again with 1 worker (attempt 3)"]


def test_the_first_report_stands(coordinator: Coordinator) -> None:
    coordinator.begin(2)
    coordinator.report(Failure("exception", 0, "worker 1: KeyError: 3"))
    coordinator.report(Failure("exception", 0, "worker 0: what followed from it"))
    assert coordinator.begin(2)
    assert said(coordinator) == ["worker 1: KeyError: 3: starting again with 2 workers (attempt 2)"]
    assert coordinator.begin(2)  # and is used up
    assert said(coordinator) == ["a worker or its node is gone: starting again with 2 workers (attempt 3)"]


def test_an_exception_that_comes_again_ends_the_run(coordinator: Coordinator) -> None:
    coordinator.begin(2)
    coordinator.post(TOKEN, [checkpoint(4)])
    for expected in (True, False):
        coordinator.report(Failure("exception", 0, "worker 1: KeyError: 3"))
        assert coordinator.begin(2) is expected
    reason = "gave up after 2 failures without a checkpoint beyond step 4; worker 1: KeyError: 3"
    assert said(coordinator, "failed") == [reason]


def test_losses_without_a_newer_checkpoint_end_the_run(coordinator: Coordinator) -> None:
    assert [coordinator.begin(2) for _ in range(RESTARTS + 2)] == [True] * (RESTARTS + 1) + [False]
    (reason,) = said(coordinator, "failed")
    assert reason.startswith(f"gave up after {RESTARTS + 1} failures without a checkpoint beyond step 0")


def test_progress_forgives(coordinator: Coordinator) -> None:
    for number in range(20):
        assert coordinator.begin(2)
        coordinator.post(TOKEN, [checkpoint(number)])
    assert said(coordinator, "failed") == []


def test_an_old_checkpoint_is_no_progress(coordinator: Coordinator) -> None:
    coordinator.begin(2)
    coordinator.post(TOKEN, [checkpoint(8)])
    for _ in range(RESTARTS):
        assert coordinator.begin(2)
        coordinator.post(TOKEN, [checkpoint(6), step(7)])
    assert not coordinator.begin(2)


def test_growth_is_no_failure(coordinator: Coordinator) -> None:
    for world_size in range(1, 3 * RESTARTS):
        assert coordinator.begin(world_size)
    texts = said(coordinator)
    assert texts[0] == "the cluster has more room: 1 -> 2 workers" and len(texts) == 3 * RESTARTS - 2


def test_growth_after_an_exception_is_a_failure(coordinator: Coordinator) -> None:
    coordinator.begin(1)
    coordinator.report(Failure("exception", 0, "worker 0: KeyError: 3"))
    assert coordinator.begin(2)
    assert said(coordinator) == ["worker 0: KeyError: 3: starting again with 2 workers (attempt 2)"]


def test_shrinking_and_growing_again(coordinator: Coordinator) -> None:
    for world_size in (4, 3, 4):
        assert coordinator.begin(world_size)
    lost, grown = said(coordinator)
    assert lost == "a worker or its node is gone: starting again with 3 workers (attempt 2)"
    assert grown == "the cluster has more room: 3 -> 4 workers"


def test_the_wish_to_stop(coordinator: Coordinator) -> None:
    assert coordinator.post(TOKEN, []) is False
    coordinator.look(stop=True)
    assert coordinator.post(TOKEN, []) is True and coordinator.post(TOKEN, [step(1)]) is True


def test_beats_have_an_age(coordinator: Coordinator, tick: Callable[[float], None]) -> None:
    assert coordinator.look().heartbeats == {}
    coordinator.heartbeat(0, TOKEN, "computing", 1)
    coordinator.heartbeat(1, TOKEN, "reducing", 7)
    tick(2)
    assert coordinator.look().heartbeats == {0: Heartbeat("computing", 2, 2), 1: Heartbeat("reducing", 2, 2)}
    coordinator.heartbeat(0, TOKEN, "computing", 2)  # gets ahead
    coordinator.heartbeat(1, TOKEN, "reducing", 7)  # says the same again
    tick(1)
    assert coordinator.look().heartbeats == {0: Heartbeat("computing", 1, 1), 1: Heartbeat("reducing", 3, 1)}
    tick(5)
    assert coordinator.look().heartbeats == {0: Heartbeat("computing", 6, 6), 1: Heartbeat("reducing", 8, 6)}


def test_a_killed_rank_is_forgotten_until_it_speaks(coordinator: Coordinator, tick: Callable[[float], None]) -> None:
    coordinator.heartbeat(0, TOKEN, "computing", 1)
    tick(9)
    coordinator.forget(0)
    coordinator.forget(3)
    assert coordinator.look().heartbeats == {}
    coordinator.heartbeat(0, TOKEN, "computing", 1)
    assert coordinator.look().heartbeats == {0: Heartbeat("computing", 0, 0)}


def test_a_new_worker_starts_anew(coordinator: Coordinator, tick: Callable[[float], None]) -> None:
    first = coordinator.arrive(0, "first")
    coordinator.heartbeat(0, first, "computing", 3)
    tick(9)
    second = coordinator.arrive(0, "second")
    seen = coordinator.look()
    assert seen.workers == {0: "second"} and seen.heartbeats == {}
    # Its count of marks may be where the first one's was.
    coordinator.heartbeat(0, second, "starting", 3)
    assert coordinator.look().heartbeats == {0: Heartbeat("starting", 0, 0)}


def test_ranks_beyond_the_world_are_dropped(coordinator: Coordinator) -> None:
    for rank in range(4):
        coordinator.heartbeat(rank, coordinator.arrive(rank, f"worker {rank}"), "starting", 0)
    coordinator.begin(4)
    assert set(coordinator.look().workers) == set(coordinator.look().heartbeats) == {0, 1, 2, 3}
    for rank in range(2):
        coordinator.heartbeat(rank, coordinator.arrive(rank, f"new worker {rank}"), "starting", 0)
    coordinator.begin(2)
    seen = coordinator.look()
    assert seen.workers == {0: "new worker 0", 1: "new worker 1"} and set(seen.heartbeats) == {0, 1}


def test_a_worker_that_was_replaced_is_not_heard(coordinator: Coordinator, tick: Callable[[float], None]) -> None:
    old, new = coordinator.arrive(1, "old"), coordinator.arrive(1, "new")
    coordinator.heartbeat(1, old, "computing", 1)
    assert coordinator.look().heartbeats == {}
    coordinator.heartbeat(1, new, "starting", 1)
    tick(5)
    coordinator.heartbeat(1, old, "computing", 2)  # would look as if the new one got ahead
    assert coordinator.look().heartbeats == {1: Heartbeat("starting", 5, 5)}


def test_another_ranks_arrival_replaces_nobody(coordinator: Coordinator) -> None:
    zero, one = coordinator.arrive(0, "zero"), coordinator.arrive(1, "one")
    coordinator.heartbeat(0, zero, "computing", 1)
    coordinator.heartbeat(1, one, "computing", 1)
    assert set(coordinator.look().heartbeats) == {0, 1}
    assert coordinator.post(zero, [step(1)]) is False and [e.step for e in coordinator.look().events] == [1]


def test_a_rank_0_that_was_replaced_is_told_to_stop_and_not_believed(coordinator: Coordinator) -> None:
    old, new = coordinator.arrive(0, "old"), coordinator.arrive(0, "new")
    assert coordinator.post(old, [checkpoint(50), Event("failed", 50, {}, 0.0, "gave up")]) is True
    assert coordinator.look().events == []
    assert coordinator.post(new, [checkpoint(4)]) is False
    assert [e.step for e in coordinator.look().events] == [4]
    # Nor does its checkpoint count as progress.
    coordinator.begin(1)
    for _ in range(RESTARTS):
        coordinator.post(old, [checkpoint(60)])
        assert coordinator.begin(1)
    assert not coordinator.begin(1)
    (reason,) = said(coordinator, "failed")
    assert "without a checkpoint beyond step 4;" in reason


RAY_DIED = Failure("worker lost", 0, "Ray Train ended with RuntimeError: no")


def test_an_end_of_ray_train_counts_once(coordinator: Coordinator) -> None:
    coordinator.begin(2)
    for attempt in range(2, RESTARTS + 2):
        assert coordinator.fail(RAY_DIED) == ""
        assert coordinator.begin(2), "the new group is not another failure"
        assert said(coordinator) == [f"{RAY_DIED.text}: starting again with 2 workers (attempt {attempt})"]
    reason = f"gave up after {RESTARTS + 1} failures without a checkpoint beyond step 0; {RAY_DIED.text}"
    assert coordinator.fail(RAY_DIED) == reason


def test_a_loss_after_an_end_of_ray_train_counts_again(coordinator: Coordinator) -> None:
    coordinator.begin(2)
    assert coordinator.fail(RAY_DIED) == "" and coordinator.begin(2)
    assert [coordinator.begin(2) for _ in range(RESTARTS)] == [True] * (RESTARTS - 1) + [False]


@pytest.mark.parametrize("before", [0, 1])
def test_growth_after_an_end_of_ray_train_hides_no_later_loss(before: int, coordinator: Coordinator) -> None:
    if before:
        coordinator.begin(before)
    assert coordinator.fail(RAY_DIED) == "" and coordinator.begin(2)
    coordinator.look()
    assert coordinator.begin(2)
    (note,) = said(coordinator)
    assert note.startswith("a worker or its node is gone: starting again")
    assert [coordinator.begin(2) for _ in range(RESTARTS - 1)] == [True] * (RESTARTS - 2) + [False]


def test_an_end_of_ray_train_is_told_by_what_a_worker_reported(coordinator: Coordinator) -> None:
    coordinator.begin(2)
    coordinator.post(TOKEN, [checkpoint(4)])
    for expected in ("", "gave up after 2 failures without a checkpoint beyond step 4; worker 1: KeyError: 3"):
        coordinator.report(Failure("exception", 0, "worker 1: KeyError: 3"))
        assert coordinator.fail(RAY_DIED) == expected
        assert coordinator.begin(2)
    assert said(coordinator)[0].startswith("worker 1: KeyError: 3: starting again")


def test_progress_forgives_ends_of_ray_train_too(coordinator: Coordinator) -> None:
    for number in range(3 * RESTARTS):
        assert coordinator.begin(2)
        coordinator.post(TOKEN, [checkpoint(number)])
        assert coordinator.fail(RAY_DIED) == ""


def test_nothing_is_lost_between_posts(coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POST_EVERY_S", 3600.0)
    handle = Local(coordinator)
    listener = CoordinatorListener(handle, TOKEN)
    listener._posted_s = time.monotonic()
    for number in range(1, 6):
        listener.on_event(step(number))
    assert handle.posts == 0 and coordinator.look().events == []
    listener.on_event(Event("evaluation", 5, {}, 0.0))
    listener.on_event(step(6))
    listener.close()
    assert [e.step for e in coordinator.look().events] == [1, 2, 3, 4, 5, 5, 6] and handle.posts == 2


def test_a_checkpoint_is_told_at_once(coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch) -> None:
    """It forgives failures: a worker may be killed right after it."""
    monkeypatch.setattr(module, "POST_EVERY_S", 3600.0)
    listener = CoordinatorListener(Local(coordinator), TOKEN)
    listener._posted_s = time.monotonic()
    listener.on_event(checkpoint(4))
    assert [e.kind for e in coordinator.look().events] == ["checkpoint"]


def test_the_wish_to_stop_comes_back_with_a_post(coordinator: Coordinator) -> None:
    listener = CoordinatorListener(Local(coordinator), TOKEN)
    assert not listener.should_stop()
    listener.on_event(Event("phase", 0, {}, 0.0))
    assert not listener.should_stop()
    coordinator.look(stop=True)
    listener.on_event(Event("phase", 0, {}, 0.0))
    assert listener.should_stop() and listener.should_stop()


class Slow(Local):
    """Replies are ready once `answer` was called; until then nobody may ask for them."""

    def __init__(self, coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(coordinator)
        self.waiting: list[object] = []
        self.ready: dict[int, bool] = {}
        monkeypatch.setattr("ray.wait", lambda refs, timeout: (refs, []) if id(refs[0]) in self.ready else ([], refs))
        monkeypatch.setattr("ray.get", lambda ref: self.ready[id(ref)])

    def remote(self, token: int, events: list[Event]) -> Any:
        reply = object()
        self.waiting.append((reply, super().remote(token, events)))
        return reply

    def answer(self) -> None:
        self.ready.update({id(reply): said for reply, said in self.waiting})


def test_a_reply_is_not_lost_when_the_next_post_takes_its_place(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps slower than the posts: each asks whether to stop just before its own post's reply is there."""
    handle = Slow(coordinator, monkeypatch)
    listener = CoordinatorListener(handle, TOKEN)
    coordinator.look(stop=True)
    listener.on_event(Event("phase", 0, {}, 0.0))
    assert not listener.should_stop()  # the reply is on its way
    handle.answer()
    listener.on_event(Event("phase", 1, {}, 0.0))  # the next reply is on its way
    assert listener.should_stop()


def test_a_rank_0_that_was_replaced_stops(coordinator: Coordinator) -> None:
    listener = CoordinatorListener(Local(coordinator), coordinator.arrive(0, "old"))
    listener.on_event(checkpoint(1))
    assert not listener.should_stop()
    coordinator.arrive(0, "new")
    listener.on_event(checkpoint(2))
    assert listener.should_stop()
    assert [e.step for e in coordinator.look().events] == [1]
