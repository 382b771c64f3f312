"""Progress of a run on a terminal, or as plain lines where there is none."""

import math
import threading
import time
from collections import deque

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from metaray.experiment.experiment import Experiment
from metaray.records.events import Event, Listener

PLAIN_EVERY_S, MOST_EVERY_S, BAR_EVERY_S = 5.0, 300.0, 0.1
SHARE = 0.04
"""Share of the elapsed time between two plain lines, so that long runs print not many more lines than short ones."""
WINDOW_S = 10.0
BAR_WIDTH = 16

PHASES = {
    "checks": "checking the experiment and its data",
    "MLflow": "opening MLflow",
    "Ray": "starting or joining Ray",
    "workers": "starting workers: each is a process of its own that imports torch",
}
"""Descriptions of the phases before the first step, shown if they last longer than `SILENT_S`."""
SILENT_S = 3.0


class ProgressDisplay(Listener):
    """Shows step, loss, score, episodes per second, share of time spent waiting, and time left of a run.

    Args:
        experiment: The experiment that is trained.
        console: Console to print to: a live bar on a terminal, a line every few seconds elsewhere.
        started_s: Time (`time.time()`) at which the command started, to report the time to the first step.
    """

    def __init__(self, experiment: Experiment, console: Console, started_s: float) -> None:
        self._experiment, self._console, self._started_s = experiment, console, started_s
        self._rate = _Rate()
        self._waiting = threading.Timer(0.0, lambda: None)
        self._phases = [("imports", started_s)]
        self._stepped = False
        self._made_s, self._printed_s = time.monotonic(), -math.inf
        self._bar = _bar(console) if console.is_terminal else None
        self._task = self._bar.add_task("", total=experiment.num_steps, figures="") if self._bar else None
        if self._bar:
            self._bar.start()

    def on_event(self, event: Event) -> None:
        """Show an event, if it is one for displays."""
        if event.kind == "note":
            self._print(event.text)
        elif event.kind == "phase":
            self._phases.append((event.text, event.time_s))
            self._phase(event.text)
        elif event.kind == "judging":
            self._judging(event)
        elif event.kind == "step":
            self._step(event)
        elif event.kind == "evaluation":
            values = "  ".join(f"{key.removeprefix('val/')} {value:.4f}" for key, value in event.values.items())
            self._print(f"step {event.step}: meta-val {values}")

    def close(self) -> None:
        """Remove the bar."""
        self._waiting.cancel()
        if self._bar:
            self._bar.stop()

    def _step(self, event: Event) -> None:
        if not self._stepped:
            self._stepped = True
            self._waiting.cancel()
            self._print(f"first step after {event.time_s - self._started_s:.1f} s: {self._start_up(event.time_s)}")
        self._rate.add(event)
        if not self._is_time() and event.step < self._experiment.num_steps:
            return
        place = f"step {event.step}/{self._experiment.num_steps}"
        if self._bar and self._task is not None:
            room = self._console.width - BAR_WIDTH - 1
            self._bar.update(self._task, completed=event.step, figures=_fitting(place, self._figures(event), room))
        else:
            self._print("  ".join([place, *self._figures(event)]))

    def _phase(self, name: str) -> None:
        self._waiting.cancel()
        text = PHASES.get(name, name)
        if name == "meta-test":
            self._print(f"judging: {name}")
        elif self._bar and self._task is not None:
            self._bar.update(self._task, figures=text[: self._console.width - BAR_WIDTH - 1])
        elif name in PHASES:
            self._waiting = threading.Timer(SILENT_S, self._print, [text])
            self._waiting.daemon = True
            self._waiting.start()

    def _judging(self, event: Event) -> None:
        """How far an evaluation is; short ones end before anything is said of them."""
        done, episodes = int(event.values["done"]), int(event.values["episodes"])
        if self._bar and self._task is not None:
            self._bar.update(self._task, figures=f"judging {event.text}: {done} of {episodes} episodes")
        elif self._is_time():
            self._print(f"judging {event.text}: {done} of {episodes} episodes")

    def _is_time(self) -> bool:
        """Whether to show something again; takes note that it is."""
        now_s = time.monotonic()
        every_s = BAR_EVERY_S
        if self._bar is None:
            every_s = min(max(PLAIN_EVERY_S, SHARE * (now_s - self._made_s)), MOST_EVERY_S)
        if now_s - self._printed_s < every_s:
            return False
        self._printed_s = now_s
        return True

    def _start_up(self, end_s: float) -> str:
        ends = [*(time_s for _, time_s in self._phases[1:]), end_s]
        spans = [f"{name} {end - start:.1f}" for (name, start), end in zip(self._phases, ends, strict=True)]
        return ", ".join(spans)

    def _figures(self, event: Event) -> list[str]:
        """Figures from the most to the least important, but for the time left, which comes last."""
        steps_per_s = self._rate.steps_per_s
        left_s = (self._experiment.num_steps - event.step) / steps_per_s if steps_per_s else 0.0
        return [
            f"loss {event.values['loss']:.4f}",
            f"{self._experiment.quality} {event.values['score']:.4f}",
            f"{_rate_text(steps_per_s * self._experiment.meta_batch_size)} episodes/s",
            f"waiting {100 * self._rate.wait_share:.1f}%",
            f"{_clock(left_s)} left",
        ]

    def _print(self, text: str) -> None:
        (self._bar.console if self._bar else self._console).print(
            text, highlight=False, markup=False, emoji=False, soft_wrap=True
        )


class _Rate:
    """Steps a second and wait share over the last seconds that the display heard of."""

    def __init__(self) -> None:
        self._steps: deque[tuple[float, float, float]] = deque()
        self._duration_s = self._wait_s = 0.0

    def add(self, event: Event) -> None:
        self._steps.append((event.time_s, event.values["duration_s"], event.values["wait_s"]))
        self._duration_s += event.values["duration_s"]
        self._wait_s += event.values["wait_s"]
        while len(self._steps) > 2 and self._steps[0][0] < event.time_s - WINDOW_S:
            _, duration_s, wait_s = self._steps.popleft()
            self._duration_s -= duration_s
            self._wait_s -= wait_s

    @property
    def steps_per_s(self) -> float:
        return len(self._steps) / self._duration_s if self._duration_s > 0 else 0.0

    @property
    def wait_share(self) -> float:
        return self._wait_s / self._duration_s if self._duration_s > 0 else 0.0


class JudgingDisplay:
    """Shows the progress of an evaluation outside of a run: a bar on a terminal, lines elsewhere.

    Args:
        console: Console to print to.
        unit: Word for what is counted.
    """

    def __init__(self, console: Console, unit: str = "episodes") -> None:
        self._console, self._unit = console, unit
        columns = TextColumn("{task.description}"), BarColumn(BAR_WIDTH), TextColumn("{task.completed}/{task.total}")
        self._bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._tasks: dict[str, TaskID] = {}
        self._said_s = time.monotonic()

    def __enter__(self) -> "JudgingDisplay":
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def __call__(self, what: str, done: int, total: int) -> None:
        """`done` of `total` are judged."""
        if what not in self._tasks:
            self._tasks[what] = self._bar.add_task(f"judging {what}", total=total)
        self._bar.update(self._tasks[what], completed=done)
        if not self._console.is_terminal and time.monotonic() - self._said_s >= PLAIN_EVERY_S:
            self._said_s = time.monotonic()
            self._console.print(f"judging {what}: {done} of {total} {self._unit}", highlight=False, soft_wrap=True)


def _bar(console: Console) -> Progress:
    return Progress(BarColumn(bar_width=BAR_WIDTH), TextColumn("{task.fields[figures]}"), console=console)


def _fitting(place: str, figures: list[str], room: int) -> str:
    """A line of as many figures as there is room for, and always the last, so that nothing is cut in the middle."""
    *rest, last = figures
    while rest and len("  ".join([place, *rest, last])) > room:
        rest.pop()
    return "  ".join([place, *rest, last])


def _rate_text(rate: float) -> str:
    """Never 0 for something that goes on."""
    return f"{rate:.0f}" if rate >= 10 else f"{rate:.1f}" if rate >= 0.1 else f"{rate:.1g}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
