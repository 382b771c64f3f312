"""The pictures of a search."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from metaray.plots.search import draw_all, draw_curves, draw_parallel, draw_response, draw_schedule
from metaray.tuning.trial import Objective, Trial, TrialScore, TrialStatus

ACCURACY, MSE = Objective("accuracy", highest=True), Objective("mse", highest=False)
ODD = "a $title with_ 100% odd characters"


def curve(*values: float, half_width: float = 0.01) -> tuple[TrialScore, ...]:
    return tuple(TrialScore(100 * at, 400 * at, value, half_width) for at, value in enumerate(values, 1))


def trial(number: int, value: Any, *values: float, status: TrialStatus = "finished", half_width: float = 0.01) -> Trial:
    return Trial(number, {"inner.lr": value}, 1200, status, curve=curve(*values, half_width=half_width))


def many(count: int) -> list[Trial]:
    statuses: tuple[TrialStatus, ...] = ("finished", "stopped early", "failed", "running", "waiting")
    return [
        Trial(
            number,
            {"inner.lr": 10.0 ** -(number % 5), "steps": number % 4, "optimizer": ("sgd", "adam")[number % 2]},
            1200,
            statuses[number % 5],
            curve=curve(0.2, 0.5 + number / 1000),
        )
        for number in range(count)
    ]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Figure]]:
    """The figures that were written."""
    figures: list[Figure] = []
    write = Figure.savefig

    def savefig(self: Figure, *args: Any, **kwargs: Any) -> None:
        figures.append(self)
        write(self, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", savefig)
    yield figures


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def points(line: Line2D) -> tuple[list[float], list[float]]:
    return np.asarray(line.get_xdata()).tolist(), np.round(np.asarray(line.get_ydata()), 6).tolist()


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for found in figure.legends for text in found.get_texts()]


SEARCHES: dict[str, list[Trial]] = {
    "nothing": [],
    "only waiting": [trial(0, 0.1, status="waiting")],
    "only failed": [trial(0, 0.1, status="failed"), trial(1, 0.2, math.nan, status="failed")],
    "one": [trial(0, 0.1, 0.5)],
    "not finite": [trial(0, 0.1, math.nan, 0.4, math.inf, half_width=math.inf), trial(1, math.nan, 0.5)],
    "unknown half widths": [trial(0, 0.1, 0.5, half_width=math.nan), trial(1, 0.2, 0.6)],
    "not numbers": [
        trial(n, v, 0.5) for n, v in enumerate(["a" * 99, "$x_", True, None, [1], {"a": [1]}, 1, 1.0, "1"])
    ],
    "many categories": [trial(n, f"some/long/name-{n}", 0.5) for n in range(50)],
    "orders of magnitude": [trial(n, 10.0 ** (n - 9), 10.0**n) for n in range(20)],
    "huge": [trial(0, 1e308, 1e308), trial(1, -1e308, -1e308), trial(2, 10**400, 0.5)],
    "not positive": [trial(0, 0.0, 0.0), trial(1, -1, -5.0)],
    "equal": [trial(n, 0.1, 0.5) for n in range(20)],
    "200": many(200),
}


@pytest.mark.parametrize("trials", SEARCHES.values(), ids=SEARCHES.keys())
def test_every_picture_of_every_search_is_a_png(trials: list[Trial], tmp_path: Path) -> None:
    draw_curves(trials, MSE, tmp_path / "curves.png", ODD)
    draw_response(trials, "inner.lr", MSE, tmp_path / "response.png", log=True, title=ODD)
    draw_parallel(trials, {"inner.lr": True, "not there": False}, MSE, tmp_path / "parallel.png", ODD)
    draw_schedule(trials, "inner.lr", MSE, tmp_path / "schedule.png", ODD)
    written = list(tmp_path.iterdir())
    assert len(written) == 4
    for path in written:
        with Image.open(path) as image:
            assert image.format == "PNG"
            assert image.size == (1200, 600)


@pytest.mark.parametrize("name", ["nothing", "only waiting", "only failed"])
def test_says_that_there_is_no_evaluation(name: str, tmp_path: Path, drawn: list[Figure]) -> None:
    draw_curves(SEARCHES[name], ACCURACY, tmp_path / "a.png", "")
    draw_response(SEARCHES[name], "inner.lr", ACCURACY, tmp_path / "b.png", log=True, title="")
    draw_parallel(SEARCHES[name], {"inner.lr": True, "b": True}, ACCURACY, tmp_path / "c.png", "")
    draw_schedule(SEARCHES[name], "inner.lr", ACCURACY, tmp_path / "d.png", "")
    assert all("no evaluation yet" in texts(figure) for figure in drawn)


def test_few_curves_are_labelled_and_many_are_coloured(tmp_path: Path, drawn: list[Figure]) -> None:
    draw_curves(many(12), ACCURACY, tmp_path / "few.png", "")
    draw_curves(many(13), ACCURACY, tmp_path / "many.png", "")
    few, lot = drawn
    assert sum(label.startswith("trial-") for label in legend(few)) == 12
    assert len(few.axes) == 1
    assert [label for label in legend(lot) if label.startswith("trial-")] == ["trial-0010: 0.51"]
    assert len(lot.axes) == 2  # the second is the colour bar


def test_how_trials_ended_is_told(tmp_path: Path, drawn: list[Figure]) -> None:
    trials = [
        trial(0, 0.1, 0.4, 0.6),
        trial(1, 0.2, 0.3, status="stopped early"),
        trial(2, 0.3, 0.9, status="failed"),
        trial(3, 0.4, status="failed"),
    ]
    draw_curves(trials, ACCURACY, tmp_path / "curves.png", "")
    assert set(legend(drawn[0])) >= {"stopped early (1)", "failed (1)", "failed at once (1)"}
    draw_response(trials, "inner.lr", ACCURACY, tmp_path / "r.png", log=True, title="")
    assert set(legend(drawn[1])) == {
        "finished (1)",
        "stopped early (1)",
        "failed (2)",
        "best: trial-0000, 0.6 \u00b1 0.01",  # it failed that had the highest
    }
    assert drawn[1].axes[0].get_xscale() == "log"


def test_values_that_are_not_numbers_are_categories(tmp_path: Path, drawn: list[Figure]) -> None:
    trials = [trial(n, value, 0.5) for n, value in enumerate(["sgd", 3, True, None, 1.5, "sgd"])]
    draw_response(trials, "inner.lr", ACCURACY, tmp_path / "a.png", log=True, title="")
    labels = [label.get_text() for label in drawn[0].axes[0].get_xticklabels()]
    assert labels == ["1.5", "3", "sgd", "None", "True"]


def test_labels_of_many_categories_are_thinned_out(tmp_path: Path, drawn: list[Figure]) -> None:
    draw_response(SEARCHES["many categories"], "inner.lr", ACCURACY, tmp_path / "a.png", log=False, title="")
    labels = [label.get_text() for label in drawn[0].axes[0].get_xticklabels()]
    assert len(labels) <= 12
    assert max(map(len, labels)) <= 18


def test_parallel_lines_span_the_axes_and_miss_below(tmp_path: Path, drawn: list[Figure]) -> None:
    trials = [
        Trial(0, {"a": 1e-3, "b": "x"}, 10, "finished", curve=curve(0.2)),
        Trial(1, {"a": 1e-1, "b": None}, 10, "finished", curve=curve(0.4)),
        Trial(2, {"a": 1e-2}, 10, "finished", curve=curve(0.3)),
        Trial(3, {"a": 1.0, "b": "y"}, 10, "failed"),
    ]
    draw_parallel(trials, {"a": True, "b": False}, ACCURACY, tmp_path / "a.png", "")
    axes = drawn[0].axes[0]
    lines = [points(line)[1] for line in axes.lines]
    assert lines == [[0.0, 0.5, 0.0], [0.5, -0.12, 0.5], [1.0, -0.12, 1.0]]
    assert "none" in texts(drawn[0])
    assert legend(drawn[0]) == ["best: trial-0001, 0.4"]


def test_a_schedule_holds_until_its_next_step_and_ends_with_the_trial(tmp_path: Path, drawn: list[Figure]) -> None:
    schedule = {"steps": [0, 100, 250, 900], "values": [0.1, 0.2, 0.3, 0.4]}
    trials = [trial(0, schedule, 0.4, 0.6, 0.5), trial(1, 0.7, 0.1), trial(2, "x", 0.3), trial(3, schedule)]
    draw_schedule(trials, "inner.lr", ACCURACY, tmp_path / "a.png", "")
    axes = drawn[0].axes[0]
    first, star, second = axes.lines
    assert points(first) == ([0, 100, 250, 300], [0.1, 0.2, 0.3, 0.3])
    assert first.get_drawstyle() == "steps-post"
    assert points(star) == ([200], [0.2])  # its best was after 200 steps
    assert points(second) == ([0, 100], [0.7, 0.7])
    assert axes.get_yscale() == "log"


def test_draws_all_that_applies(tmp_path: Path) -> None:
    trials = [
        Trial(0, {"inner.lr": {"steps": [0], "values": [0.1]}, "a/b": 1, "c": "x"}, 10, "finished", curve=curve(0.4)),
        Trial(1, {"inner.lr": 0.2, "a/b": 2, "c": "y"}, 10, "finished", curve=curve(0.5)),
    ]
    paths = draw_all(trials, {"inner.lr": True}, ACCURACY, tmp_path, ODD)
    assert [path.name for path in paths] == [
        "curves.png",
        "accuracy-by-a-b.png",
        "accuracy-by-c.png",
        "parallel.png",
        "schedule-inner.lr.png",
    ]
    assert set(paths) == set(tmp_path.iterdir())
    assert [path.name for path in draw_all([], {"a": True}, ACCURACY, tmp_path, ODD)] == ["curves.png"]
    assert [path.name for path in draw_all([trial(0, 0.1)], {}, MSE, tmp_path, ODD)] == [
        "curves.png",
        "mse-by-inner.lr.png",
    ]


def test_the_picture_widens_with_its_axes(tmp_path: Path) -> None:
    draw_parallel([], {f"key-{n}": False for n in range(9)}, MSE, tmp_path / "a.png", "")
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (2160, 600)
