import pytest

from metaray.training.profile_table import Range, own_times, phase_lines


def test_a_phase_has_no_time_of_those_inside_it() -> None:
    ranges = [
        Range("rest of the algorithm", 10, 100),
        Range("inner loop", 20, 50),
        Range("query pass", 50, 60),
        Range("outer backward", 60, 95),
        Range("reduction", 100, 103),
        Range("rest of the algorithm", 110, 120),
    ]
    wanted = {
        "rest of the algorithm": 90 - 30 - 10 - 35 + 10,
        "inner loop": 30,
        "query pass": 10,
        "outer backward": 35,
        "reduction": 3,
    }
    assert own_times(reversed(ranges)) == wanted


def test_an_evaluation_keeps_the_time_of_what_is_inside_it() -> None:
    ranges = [
        Range("evaluation", 0, 50),
        Range("inner loop", 1, 20),
        Range("query pass", 5, 9),
        Range("query pass", 60, 61),
    ]
    assert own_times(ranges) == {"evaluation": 50, "query pass": 1}


def test_what_begins_where_another_ends_is_not_inside_it() -> None:
    assert own_times([Range("inner loop", 0, 5), Range("query pass", 5, 5.5)]) == {"inner loop": 5, "query pass": 0.5}


def test_shares_of_the_thread_that_computes_add_up() -> None:
    own = {"reduction": 100.0, "inner loop": 2500.0}
    head, *lines = phase_lines(own, {"sampling episodes": 1000.0}, whole=4000.0, count=2)
    rows = [line.rsplit(maxsplit=2) for line in lines]
    assert head.split() == ["phase", "share", "ms", "a", "step"]
    assert rows == [
        ["inner loop", "62.5%", "1.25"],
        ["reduction", "2.5%", "0.05"],
        ["rest of the step", "35.0%", "0.70"],
        ["(sampling episodes, in a thread beside)", "25.0%", "0.50"],
    ]
    assert sum(float(share.rstrip("%")) for _, share, _ in rows[:3]) == pytest.approx(100)
