import io
import re
import threading
from collections.abc import Callable
from itertools import pairwise

import pytest
from rich.console import Console

from metaray.displays import run_display as display
from metaray.displays.run_display import JudgingDisplay, ProgressDisplay
from metaray.experiment.experiment import Experiment
from metaray.records.events import Event

MakeExperiment = Callable[..., Experiment]


def step(number: int, time_s: float, duration_s: float = 0.5, wait_s: float = 0.1) -> Event:
    return Event("step", number, {"loss": 1.5, "score": 0.25, "duration_s": duration_s, "wait_s": wait_s}, time_s)


def shown(make_experiment: MakeExperiment, events: list[Event], *, terminal: bool, width: int = 150) -> str:
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=width)
    progress = ProgressDisplay(make_experiment(), console, started_s=100.0)
    for event in events:
        progress.on_event(event)
    progress.close()
    progress.close()
    return file.getvalue()


def test_plain_lines_where_there_is_no_terminal(make_experiment: MakeExperiment) -> None:
    events = [Event("phase", 0, {}, 101.0, text="checks"), *(step(n, 102.0 + n) for n in range(1, 4))]
    events += [Event("evaluation", 3, {"val/loss": 0.5, "val/accuracy": 0.75}, 106.0), step(6, 107.0)]
    events += [Event("metrics", 6, {"train/loss": 1.0}, 107.0), Event("phase", 6, {}, 108.0, "meta-test")]
    lines = shown(make_experiment, events, terminal=False).splitlines()
    assert lines[0].startswith("first step after 3.0 s")
    assert lines[1] == "step 1/6  loss 1.5000  accuracy 0.2500  8.0 episodes/s  waiting 20.0%  0:02 left"
    assert lines[2] == "step 3: meta-val loss 0.5000  accuracy 0.7500"
    assert lines[3] == "step 6/6  loss 1.5000  accuracy 0.2500  8.0 episodes/s  waiting 20.0%  0:00 left"
    assert lines[4] == "judging: meta-test"
    assert len(lines) == 5


@pytest.mark.parametrize("terminal", [False, True])
def test_what_is_being_waited_for_is_said(
    terminal: bool, make_experiment: MakeExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Lapsed(threading.Timer):
        """The time is up as soon as it begins."""

        def start(self) -> None:
            assert self.interval == display.SILENT_S
            self.function(*self.args)

    monkeypatch.setattr(threading, "Timer", Lapsed)
    events = [Event("phase", 0, {}, 101.0 + i, name) for i, name in enumerate(display.PHASES)]
    out = shown(make_experiment, events, terminal=terminal, width=80)
    assert out.splitlines() == list(display.PHASES.values()) if not terminal else "starting workers: each" in out


def test_short_phases_pass_without_a_word(make_experiment: MakeExperiment) -> None:
    events = [Event("phase", 0, {}, 101.0, name) for name in (*display.PHASES, "training")]
    assert shown(make_experiment, events, terminal=False) == ""


def test_a_bar_on_a_terminal(make_experiment: MakeExperiment) -> None:
    out = shown(make_experiment, [step(6, 103.0)], terminal=True)
    assert "step 6/6" in out
    assert "waiting 20.0%" in out
    assert out.rstrip().endswith("\x1b[?25h"), "the cursor stays hidden"


@pytest.mark.parametrize("width", [60, 80, 100])
def test_at_any_width_figures_are_left_out_and_not_cut(width: int, make_experiment: MakeExperiment) -> None:
    out = shown(make_experiment, [step(6, 103.0)], terminal=True, width=width)
    (line, *_) = [text for text in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", out).splitlines() if "step 6/6" in text]
    assert len(line.rstrip()) <= width and "loss 1.5000" in line and line.rstrip().endswith("0:00 left")
    assert ("waiting" in line) == (width == 100)


def test_a_long_run_says_less_and_less(make_experiment: MakeExperiment, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("metaray.displays.run_display.time.monotonic", lambda: now[0])
    file = io.StringIO()
    progress = ProgressDisplay(make_experiment(num_steps=5 * 3600), Console(file=file, width=150), started_s=0.0)
    for second in range(4 * 3600):
        now[0] = float(second)
        progress.on_event(step(second + 1, now[0]))
    at = [
        int(line.split("/")[0].removeprefix("step ")) - 1 for line in file.getvalue().splitlines() if "/" in line[:12]
    ]
    gaps = [later - earlier for earlier, later in pairwise(at)]
    assert gaps[0] == 5 and gaps[-1] == 300 and gaps == sorted(gaps)


def test_how_far_an_evaluation_is(make_experiment: MakeExperiment) -> None:
    half = Event("judging", 6, {"done": 300.0, "episodes": 600.0}, 109.0, "meta-test")
    for terminal in (False, True):
        assert "judging meta-test: 300 of 600 episodes" in shown(make_experiment, [half], terminal=terminal)


@pytest.mark.parametrize(("rate", "text"), [(254.4, "254"), (9.96, "10.0"), (0.23, "0.2"), (0.012, "0.01")])
def test_no_rate_is_shown_as_zero(rate: float, text: str) -> None:
    assert display._rate_text(rate) == text


@pytest.mark.parametrize("terminal", [False, True])
def test_an_evaluation_of_its_own_says_how_far_it_is(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    file, now = io.StringIO(), [0.0]
    monkeypatch.setattr("metaray.displays.run_display.time.monotonic", lambda: now[0])
    with JudgingDisplay(Console(file=file, force_terminal=terminal, width=80)) as progress:
        for done in range(1, 13):
            now[0] += 1.0
            progress("meta-test", done, 12)
    if terminal:
        assert "judging meta-test" in file.getvalue()
    else:
        assert file.getvalue().splitlines() == [f"judging meta-test: {done} of 12 episodes" for done in (5, 10)]


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize(
    "text",
    [
        "RuntimeError: [/__w/pytorch/pair.cc:544] Connection closed by peer [127.0.0.1]:4711",
        "KeyError: [bold]x[/bold] [red]",
        "[Errno 28] No space left on device: \\[x]",
        "no connection to 10.0.0.1:100:x",  # not an emoji
    ],
)
def test_notes_are_shown_as_they_are(text: str, terminal: bool, make_experiment: MakeExperiment) -> None:
    out = shown(make_experiment, [Event("note", 0, {}, 101.0, f"worker 1: {text}")], terminal=terminal)
    assert f"worker 1: {text}" in out


def test_rates_cover_the_last_seconds_only() -> None:
    rate = display._Rate()
    assert (rate.steps_per_s, rate.wait_share) == (0.0, 0.0)
    for number in range(100):
        slow = number < 50
        rate.add(step(number, float(number), duration_s=2.0 if slow else 0.5, wait_s=1.0 if slow else 0.0))
    assert rate.steps_per_s == pytest.approx(2.0)
    assert rate.wait_share == 0.0


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (61, "1:01"), (7265, "2:01:05")])
def test_clock(seconds: float, text: str) -> None:
    assert display._clock(seconds) == text
