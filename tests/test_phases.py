import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from metaray.phases import each, in_phase, marked_by, phase


class Marks:
    """Remembers which phases began and ended."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        self.seen.append(f"+{name}")
        try:
            yield
        finally:
            self.seen.append(f"-{name}")


@in_phase("inner loop")
def learned(x: int, *, more: int) -> int:
    """Learn."""
    return x + more


def test_without_a_profiler_nothing_is_marked() -> None:
    marks = Marks()
    with marked_by(marks):
        pass
    with phase("query pass"):
        assert learned(1, more=2) == 3
    assert list(each("waiting for episodes", [1, 2])) == [1, 2]
    assert marks.seen == []


def test_blocks_and_functions_are_marked_in_every_thread() -> None:
    marks = Marks()
    with marked_by(marks):
        with phase("query pass"):
            assert learned(1, more=2) == 3
        thread = threading.Thread(target=learned, args=(1,), kwargs={"more": 1})
        thread.start()
        thread.join()
    inner = ["+inner loop", "-inner loop"]
    assert marks.seen == ["+query pass", *inner, "-query pass", *inner]
    assert (learned.__name__, learned.__doc__) == ("learned", "Learn.")


def test_coming_by_an_item_is_marked_but_not_its_use() -> None:
    marks = Marks()
    with marked_by(marks):
        for item in each("moving to the device", iter("ab")):
            marks.seen.append(item)
    around = ["+moving to the device", "-moving to the device"]
    assert marks.seen == [*around, "a", *around, "b", *around]


def test_what_is_raised_within_leaves_no_mark_open() -> None:
    marks = Marks()
    with pytest.raises(ZeroDivisionError), marked_by(marks), phase("reduction"):
        raise ZeroDivisionError
    assert marks.seen == ["+reduction", "-reduction"]
    with phase("reduction"):
        pass
    assert len(marks.seen) == 2
