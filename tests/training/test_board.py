"""The board between rank 0 and the driver, without a cluster."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from metaray.training import board as module
from metaray.training.board import Board, BoardListener
from metaray.training.events import Event
from metaray.training.recovery import RESTARTS, Beat, Failure


class Local:
    """An actor handle that answers at once."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self.posts = 0

    @property
    def post(self) -> "Local":
        return self

    def remote(self, events: list[Event]) -> bool:
        self.posts += 1
        return self._board.post(events)


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch) -> Board:
    def wait(refs: list[Any], timeout: float) -> tuple[list[Any], list[Any]]:
        return refs, []

    def get(ref: Any) -> Any:
        return ref

    monkeypatch.setattr("ray.wait", wait)
    monkeypatch.setattr("ray.get", get)
    return Board()


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


def said(board: Board, kind: str = "note") -> list[str]:
    return [event.text for event in board.look().events if event.kind == kind]


def test_events_arrive_once_and_in_order(board: Board) -> None:
    board.post([step(1), step(2)])
    board.post([step(3)])
    assert [e.step for e in board.look().events] == [1, 2, 3] and board.look().events == []


def test_the_first_attempt_is_none_too_many(board: Board) -> None:
    assert board.begin(2) and board.look().events == []


def test_a_lost_worker_is_noted_and_replaced(board: Board) -> None:
    board.begin(2)
    board.post([checkpoint(4)])
    board.look()
    assert board.begin(2)
    (event,) = board.look().events
    assert (event.kind, event.step) == ("note", 4)
    assert event.text == "a worker or its node is gone: starting again with 2 workers (attempt 2)"
    assert board.begin(1)
    assert said(board) == ["a worker or its node is gone: starting again with 1 worker (attempt 3)"]


def test_the_first_report_stands(board: Board) -> None:
    board.begin(2)
    board.report(Failure("exception", 0, "worker 1: KeyError: 3"))
    board.report(Failure("exception", 0, "worker 0: what followed from it"))
    assert board.begin(2)
    assert said(board) == ["worker 1: KeyError: 3: starting again with 2 workers (attempt 2)"]
    assert board.begin(2)  # and is used up
    assert said(board) == ["a worker or its node is gone: starting again with 2 workers (attempt 3)"]


def test_an_exception_that_comes_again_ends_the_run(board: Board) -> None:
    board.begin(2)
    board.post([checkpoint(4)])
    for expected in (True, False):
        board.report(Failure("exception", 0, "worker 1: KeyError: 3"))
        assert board.begin(2) is expected
    reason = "gave up after 2 failures without a checkpoint beyond step 4; worker 1: KeyError: 3"
    assert said(board, "failed") == [reason]


def test_losses_without_a_newer_checkpoint_end_the_run(board: Board) -> None:
    assert [board.begin(2) for _ in range(RESTARTS + 2)] == [True] * (RESTARTS + 1) + [False]
    (reason,) = said(board, "failed")
    assert reason.startswith(f"gave up after {RESTARTS + 1} failures without a checkpoint beyond step 0")


def test_progress_forgives(board: Board) -> None:
    for number in range(20):
        assert board.begin(2)
        board.post([checkpoint(number)])
    assert said(board, "failed") == []


def test_an_old_checkpoint_is_no_progress(board: Board) -> None:
    board.begin(2)
    board.post([checkpoint(8)])
    for _ in range(RESTARTS):
        assert board.begin(2)
        board.post([checkpoint(6), step(7)])
    assert not board.begin(2)


def test_growth_is_no_failure(board: Board) -> None:
    for world_size in range(1, 3 * RESTARTS):
        assert board.begin(world_size)
    texts = said(board)
    assert texts[0] == "the cluster has more room: 1 -> 2 workers" and len(texts) == 3 * RESTARTS - 2


def test_growth_after_an_exception_is_a_failure(board: Board) -> None:
    board.begin(1)
    board.report(Failure("exception", 0, "worker 0: KeyError: 3"))
    assert board.begin(2)
    assert said(board) == ["worker 0: KeyError: 3: starting again with 2 workers (attempt 2)"]


def test_shrinking_and_growing_again(board: Board) -> None:
    for world_size in (4, 3, 4):
        assert board.begin(world_size)
    lost, grown = said(board)
    assert lost == "a worker or its node is gone: starting again with 3 workers (attempt 2)"
    assert grown == "the cluster has more room: 3 -> 4 workers"


def test_the_wish_to_stop(board: Board) -> None:
    assert board.post([]) is False
    board.request_stop()
    assert board.post([]) is True and board.post([step(1)]) is True


def test_beats_have_an_age(board: Board, tick: Callable[[float], None]) -> None:
    assert board.look().beats == {}
    board.beat(0, "computing", 1)
    board.beat(1, "reducing", 7)
    tick(2)
    assert board.look().beats == {0: Beat("computing", 2, 2), 1: Beat("reducing", 2, 2)}
    board.beat(0, "computing", 2)  # gets ahead
    board.beat(1, "reducing", 7)  # says the same again
    tick(1)
    assert board.look().beats == {0: Beat("computing", 1, 1), 1: Beat("reducing", 3, 1)}
    tick(5)
    assert board.look().beats == {0: Beat("computing", 6, 6), 1: Beat("reducing", 8, 6)}


def test_a_killed_rank_is_forgotten_until_it_speaks(board: Board, tick: Callable[[float], None]) -> None:
    board.beat(0, "computing", 1)
    tick(9)
    board.forget(0)
    board.forget(3)
    assert board.look().beats == {}
    board.beat(0, "computing", 1)
    assert board.look().beats == {0: Beat("computing", 0, 0)}


def test_a_new_worker_starts_anew(board: Board, tick: Callable[[float], None]) -> None:
    board.arrive(0, "first")
    board.beat(0, "computing", 3)
    tick(9)
    board.arrive(0, "second")
    seen = board.look()
    assert seen.workers == {0: "second"} and seen.beats == {}
    # Its count of marks may be where the first one's was.
    board.beat(0, "starting", 3)
    assert board.look().beats == {0: Beat("starting", 0, 0)}


def test_ranks_beyond_the_world_are_dropped(board: Board) -> None:
    for rank in range(4):
        board.arrive(rank, f"worker {rank}")
        board.beat(rank, "starting", 0)
    board.begin(4)
    assert set(board.look().workers) == set(board.look().beats) == {0, 1, 2, 3}
    for rank in range(2):
        board.arrive(rank, f"new worker {rank}")
        board.beat(rank, "starting", 0)
    board.begin(2)
    seen = board.look()
    assert seen.workers == {0: "new worker 0", 1: "new worker 1"} and set(seen.beats) == {0, 1}


def test_nothing_is_lost_between_posts(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POST_EVERY_S", 3600.0)
    handle = Local(board)
    listener = BoardListener(handle)
    listener._posted_s = time.monotonic()
    for number in range(1, 6):
        listener.on_event(step(number))
    assert handle.posts == 0 and board.look().events == []
    listener.on_event(Event("evaluation", 5, {}, 0.0))
    listener.on_event(step(6))
    listener.close()
    assert [e.step for e in board.look().events] == [1, 2, 3, 4, 5, 5, 6] and handle.posts == 2


def test_a_checkpoint_is_told_at_once(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    """It forgives failures: a worker may be killed right after it."""
    monkeypatch.setattr(module, "POST_EVERY_S", 3600.0)
    listener = BoardListener(Local(board))
    listener._posted_s = time.monotonic()
    listener.on_event(checkpoint(4))
    assert [e.kind for e in board.look().events] == ["checkpoint"]


def test_the_wish_to_stop_comes_back_with_a_post(board: Board) -> None:
    listener = BoardListener(Local(board))
    assert not listener.should_stop()
    listener.on_event(Event("phase", 0, {}, 0.0))
    assert not listener.should_stop()
    board.request_stop()
    listener.on_event(Event("phase", 0, {}, 0.0))
    assert listener.should_stop() and listener.should_stop()
