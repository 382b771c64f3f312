"""Progress of a run on a terminal, or as plain lines where there is none."""

import time
from collections import deque

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from metaray.training.events import Event, Listener
from metaray.training.experiment import Experiment

PLAIN_EVERY_S, BAR_EVERY_S = 5.0, 0.1
WINDOW_S = 10.0


class ProgressDisplay(Listener):
    """Shows step, loss, quality, episodes a second, share of time spent waiting for episodes, and time left.

    Args:
        experiment: what is being trained.
        console: where to print; a live bar on a terminal, a line each few seconds elsewhere.
        started_s: `time.time()` when the command started, to tell the time to the first step.
    """

    def __init__(self, experiment: Experiment, console: Console, started_s: float) -> None:
        self._experiment, self._console, self._started_s = experiment, console, started_s
        self._rate = _Rate()
        self._phases = [("imports", started_s)]
        self._stepped = False
        self._printed_s = 0.0
        self._bar = _bar(console) if console.is_terminal else None
        self._task = self._bar.add_task("", total=experiment.num_steps, figures="") if self._bar else None
        if self._bar:
            self._bar.start()

    def on_event(self, event: Event) -> None:
        """Show it, if it is one for displays."""
        if event.kind == "note":
            self._print(event.text)
        elif event.kind == "phase":
            self._phases.append((event.text, event.time_s))
            if event.text == "meta-test":
                self._print(f"judging: {event.text}")
        elif event.kind == "step":
            self._step(event)
        elif event.kind == "evaluation":
            values = "  ".join(f"{key.removeprefix('val/')} {value:.4f}" for key, value in event.values.items())
            self._print(f"step {event.step}: meta-val {values}")

    def close(self) -> None:
        """Take the bar away."""
        if self._bar:
            self._bar.stop()

    def _step(self, event: Event) -> None:
        if not self._stepped:
            self._stepped = True
            self._print(f"first step after {event.time_s - self._started_s:.1f} s: {self._start_up(event.time_s)}")
        self._rate.add(event)
        every_s = PLAIN_EVERY_S if self._bar is None else BAR_EVERY_S
        if time.monotonic() - self._printed_s < every_s and event.step < self._experiment.num_steps:
            return
        self._printed_s = time.monotonic()
        figures = self._figures(event)
        if self._bar and self._task is not None:
            self._bar.update(self._task, completed=event.step, figures=figures)
        else:
            self._print(f"step {event.step}/{self._experiment.num_steps}  {figures}")

    def _start_up(self, end_s: float) -> str:
        ends = [*(time_s for _, time_s in self._phases[1:]), end_s]
        spans = [f"{name} {end - start:.1f}" for (name, start), end in zip(self._phases, ends, strict=True)]
        return ", ".join(spans)

    def _figures(self, event: Event) -> str:
        steps_per_s = self._rate.steps_per_s
        left_s = (self._experiment.num_steps - event.step) / steps_per_s if steps_per_s else 0.0
        return (
            f"loss {event.values['loss']:.4f}  {self._experiment.quality} {event.values['score']:.4f}  "
            f"{steps_per_s * self._experiment.meta_batch_size:.0f} episodes/s  "
            f"waiting {100 * self._rate.wait_share:.1f}%  {_clock(left_s)} left"
        )

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


def _bar(console: Console) -> Progress:
    return Progress(
        BarColumn(bar_width=30),
        TextColumn("step {task.completed}/{task.total}"),
        TextColumn("{task.fields[figures]}"),
        console=console,
    )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
