"""The trials of a search: a live table on a terminal, plain lines where there is none."""

import json
import math
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, final

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from metaray.tuning.listener import SearchListener
from metaray.tuning.search import Search
from metaray.tuning.trial import Trial, TrialStatus, winner_of

ROWS = 24
"""Rows of the live table, which should fit on a screen: what runs, and the best of the rest."""
BEST = 6
"""Width of the column for the best value, or for the reason why there is none."""
NAME = 10
"""Length of a column's name from which on it is broken into lines."""
STYLES: Mapping[TrialStatus, str] = {"running": "bold", "finished": "green", "stopped early": "dim", "failed": "red"}


@final
class TrialsDisplay(SearchListener):
    """Shows the progress of a search's trials.

    Args:
        search: The running search.
        console: Console to print to.
    """

    def __init__(self, search: Search, console: Console) -> None:
        self._search, self._console = search, console
        self._started_s = time.monotonic()
        self._said: dict[int, tuple[TrialStatus, int]] = {}
        self._live: Live | None = None

    def on_trials(self, trials: Sequence[Trial], changed: Trial) -> None:
        """Show what is new about a trial."""
        if self._console.is_terminal:
            if self._live is None:
                self._live = Live(console=self._console, refresh_per_second=4, transient=False)
                self._live.start()
            self._live.update(self._table(trials))
            return
        news = changed.status, len(changed.curve)
        if self._said.get(changed.number) != news:
            self._said[changed.number] = news
            self._print(self._line(changed))

    def on_note(self, text: str) -> None:
        """Print a message."""
        self._print(text)

    def close(self) -> None:
        """Stop updating the table, which stays visible."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _print(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, emoji=False, soft_wrap=True)

    def _line(self, trial: Trial) -> str:
        parts = [trial.name, trial.status if trial.status != "waiting" else "paused", settings_text(trial.settings)]
        if trial.curve:
            value = f"{self._search.optimises.name} {trial.curve[-1].value:.4f}"
            parts.append(f"{value} after {trial.episodes} of {trial.num_episodes} episodes")
        if trial.why:
            parts.append(trial.why)
        return "  ".join(parts)

    def _table(self, trials: Sequence[Trial]) -> Table:
        objective = self._search.optimises
        best = winner_of(trials, objective)
        counts = {status: sum(trial.status == status for trial in trials) for status in STYLES}
        listed = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
        seconds = time.monotonic() - self._started_s
        title = f"{len(trials)} of {self._search.population} trials: {listed}; {seconds / 60:.1f} min"
        shown = self._shown(trials)
        fields = self._fields(shown)
        left = [name for key, name in short_names(self._search.space).items() if key not in fields]
        title += f"; without {', '.join(left)}" if left else ""
        table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=0)
        for column in ("trial", "", *fields.values(), "episodes", objective.name):
            table.add_column(column, justify="left" if column in ("trial", "") else "right")
        room = BEST + max(0, self._console.width - self._width(shown, fields))
        table.add_column("best", justify="right", no_wrap=True, overflow="ellipsis", max_width=room)
        for trial in shown:
            row = self._row(trial, fields, is_best=trial is best)
            table.add_row(*map(Text, row), style=STYLES.get(trial.status, ""))
        return table

    def _fields(self, shown: Sequence[Trial]) -> dict[str, str]:
        """The searched fields, as many as leave each trial on one line, with the names of their columns.

        If not all have room, those that are equal in all trials go first. The table at the end has all of them.
        """
        short = short_names(self._search.space)
        same = constant([trial.settings for trial in shown], list(short))
        broken = {key: stacked(name) for key, name in short.items()}
        rest = [(key, name) for key, name in broken.items() if key not in same]
        tries = (short, broken, *(dict(rest[:count]) for count in range(len(rest), 0, -1)))
        return next((fields for fields in tries if self._width(shown, fields) <= self._console.width), {})

    def _width(self, shown: Sequence[Trial], fields: Mapping[str, str]) -> int:
        """Width of a table with these fields; the last column, which may say why a trial failed, is cut to its room."""
        names = ("trial", "", *fields.values(), "episodes", self._search.optimises.name)
        rows = [self._row(trial, fields, is_best=True)[:-1] for trial in shown]
        cells = zip(names, *rows, strict=True)
        widths = [max(cell_len(line) for cell in column for line in cell.split("\n")) for column in cells]
        return sum(widths) + len(widths) + len("  ") + BEST  # with a blank between columns, and at both ends

    def _shown(self, trials: Sequence[Trial]) -> list[Trial]:
        """Those that run, and of the others the best."""

        def rank(trial: Trial) -> tuple[bool, float]:
            best = trial.best(self._search.optimises)
            value = math.inf if best is None else best.value * (-1 if self._search.optimises.highest else 1)
            return trial.status != "running", value

        return sorted(sorted(trials, key=rank)[:ROWS], key=lambda trial: trial.number)

    def _row(self, trial: Trial, fields: Iterable[str], *, is_best: bool) -> tuple[str, ...]:
        best = trial.best(self._search.optimises)
        share = trial.episodes / trial.num_episodes if trial.num_episodes else 1.0
        return (
            f"{trial.number}{'*' if is_best else ''}",
            trial.status.removesuffix(" early"),  # for a line a trial at 80 columns
            *(value_text(trial.settings.get(key)) for key in fields),
            f"{trial.episodes} {share:.0%}",
            f"{trial.curve[-1].value:.4f}" if trial.curve else "",
            f"{best.value:.4f}" if best else trial.why,
        )


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """Short names of dotted keys: as many last parts as distinguish a key from the others, as in `inner_lr`."""
    known, found = list(keys), {}
    for key in known:
        parts = key.split(".")
        fewest = 1 if parts[-1].isidentifier() else min(2, len(parts))  # of a pattern, what it is of
        ends = (".".join(parts[-count:]) for count in range(fewest, len(parts) + 1))
        found[key] = next(end for end in ends if end == key or sum(f".{one}".endswith(f".{end}") for one in known) == 1)
    return found


def settings_text(settings: Mapping[str, Any]) -> str:
    """Searched fields and their values as text, as in `algorithm.inner_lr=0.0417`."""
    return " ".join(f"{key}={value_text(value)}" for key, value in settings.items())


def value_text(value: Any) -> str:
    """The value of a searched field as short text; of a schedule its last value."""
    if isinstance(value, Mapping) and "values" in value:
        since = f" (since step {value['steps'][-1]})" if len(value["steps"]) > 1 else ""
        return f"{value_text(value['values'][-1])}{since}"
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value)


def constant(settings: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> dict[str, Any]:
    """The fields that have the same value in several trials, with that value."""
    first = settings[0] if len(settings) > 1 else {}
    return {key: first[key] for key in keys if key in first and all(one.get(key) == first[key] for one in settings)}


def stacked(name: str) -> str:
    """A column's name over several lines, each no longer than its longest part: `meta_`, `batch_size`."""
    parts = re.split(r"(?<=[._])(?=.)", name)
    width, lines = max(NAME, *map(len, parts)), [""]
    for part in parts:
        if len(lines[-1] + part) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)
