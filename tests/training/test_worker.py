"""The board between rank 0 and the driver, without a cluster."""

import time
from typing import Any

import pytest

from metaray.training import worker
from metaray.training.events import Event
from metaray.training.worker import Board, BoardListener


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


def step(number: int) -> Event:
    return Event("step", number, {}, 0.0)


def test_events_arrive_once_and_in_order(board: Board) -> None:
    board.post([step(1), step(2)])
    board.post([step(3)])
    assert [e.step for e in board.drain()] == [1, 2, 3] and board.drain() == []


def test_nothing_is_lost_between_posts(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "POST_EVERY_S", 3600.0)
    handle = Local(board)
    listener = BoardListener(handle)
    listener._posted_s = time.monotonic()
    for number in range(1, 6):
        listener.on_event(step(number))
    assert handle.posts == 0 and board.drain() == []
    listener.on_event(Event("evaluation", 5, {}, 0.0))
    listener.on_event(step(6))
    listener.close()
    assert [e.step for e in board.drain()] == [1, 2, 3, 4, 5, 5, 6] and handle.posts == 2


def test_the_wish_to_stop_comes_back_with_a_post(board: Board) -> None:
    listener = BoardListener(Local(board))
    assert not listener.should_stop()
    listener.on_event(Event("phase", 0, {}, 0.0))
    assert not listener.should_stop()
    board.request_stop()
    listener.on_event(Event("phase", 0, {}, 0.0))
    assert listener.should_stop() and listener.should_stop()
