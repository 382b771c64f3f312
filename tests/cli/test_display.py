import io
from collections.abc import Callable

import pytest
from rich.console import Console

from metaray.cli import display
from metaray.cli.display import ProgressDisplay
from metaray.training.events import Event
from metaray.training.experiment import Experiment

MakeExperiment = Callable[..., Experiment]


def step(number: int, time_s: float, duration_s: float = 0.5, wait_s: float = 0.1) -> Event:
    return Event("step", number, {"loss": 1.5, "score": 0.25, "duration_s": duration_s, "wait_s": wait_s}, time_s)


def shown(make_experiment: MakeExperiment, events: list[Event], *, terminal: bool) -> str:
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=150)
    progress = ProgressDisplay(make_experiment(), console, started_s=100.0)
    for event in events:
        progress.on_event(event)
    progress.close()
    progress.close()
    return file.getvalue()


def test_plain_lines_where_there_is_no_terminal(make_experiment: MakeExperiment) -> None:
    events = [Event("phase", 0, {}, 101.0, "checks"), *(step(n, 102.0 + n) for n in range(1, 4))]
    events += [Event("evaluation", 3, {"val/loss": 0.5, "val/accuracy": 0.75}, 106.0), step(6, 107.0)]
    events += [Event("metrics", 6, {"train/loss": 1.0}, 107.0), Event("phase", 6, {}, 108.0, "meta-test")]
    lines = shown(make_experiment, events, terminal=False).splitlines()
    assert lines[0].startswith("first step after 3.0 s")
    assert lines[1] == "step 1/6  loss 1.5000  accuracy 0.2500  8 episodes/s  waiting 20.0%  0:02 left"
    assert lines[2] == "step 3: meta-val loss 0.5000  accuracy 0.7500"
    assert lines[3] == "step 6/6  loss 1.5000  accuracy 0.2500  8 episodes/s  waiting 20.0%  0:00 left"
    assert lines[4] == "judging: meta-test"
    assert len(lines) == 5


def test_a_bar_on_a_terminal(make_experiment: MakeExperiment) -> None:
    out = shown(make_experiment, [step(6, 103.0)], terminal=True)
    assert "step 6/6" in out
    assert "waiting 20.0%" in out
    assert out.rstrip().endswith("\x1b[?25h"), "the cursor stays hidden"


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
