"""The display that is right where a call is made: a terminal, a notebook, a log, or none."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from importlib.util import find_spec

from rich.console import Console

from metaray.experiment.experiment import Experiment
from metaray.records.events import Fanout, Listener
from metaray.tuning.listener import SearchListener, Unheard
from metaray.tuning.search import Search

Progress = bool | Listener | Callable[[Experiment], AbstractContextManager[Listener]]
"""Whether to show the events of a run; or a listener to them, or a function that makes one."""


@contextmanager
def shown_run(progress: Progress, experiment: Experiment, started_s: float | None = None) -> Iterator[Listener]:
    """Within the block, the listener that shows or receives the events of a run.

    Args:
        progress: Whether to show the events; or the listener that receives them.
        experiment: The experiment that is trained.
        started_s: Time (`time.time()`) at which the command or call started; None is now.
    """
    if isinstance(progress, Listener):
        yield progress
        return
    if callable(progress):
        with progress(experiment) as made:
            yield made
        return
    if not progress:
        yield Fanout([])
        return
    from metaray.displays.run_display import ProgressDisplay

    display = ProgressDisplay(experiment, console(), time.time() if started_s is None else started_s)
    with closing(display):
        yield display


SearchProgress = bool | SearchListener
"""Whether to show the trials of a search; or a listener to their news."""


@contextmanager
def shown_search(progress: SearchProgress, search: Search) -> Iterator[SearchListener]:
    """Within the block, the listener that shows or receives the news of a search's trials.

    Args:
        progress: Whether to show the trials; or the listener that receives their news.
        search: The running search.
    """
    if isinstance(progress, SearchListener):
        yield progress
        return
    if not progress:
        yield Unheard()
        return
    from metaray.displays.trials_display import TrialsDisplay

    with closing(TrialsDisplay(search, console())) as display:
        yield display


JudgingProgress = bool | Callable[[str, int, int], None]
"""Whether to show how far judging is, or what is told: what is judged, and how many episodes of how many are done."""


@contextmanager
def shown_judging(progress: JudgingProgress, unit: str = "episodes") -> Iterator[Callable[[str, int, int], None]]:
    """Within the block, the function that is called with the progress of an evaluation.

    Args:
        progress: Whether to show the progress; or the function that is called instead.
        unit: Word for what is counted.
    """
    if callable(progress):
        yield progress
        return
    if not progress:
        yield lambda what, done, total: None
        return
    from metaray.displays.run_display import JudgingDisplay

    with JudgingDisplay(console(), unit) as display:
        yield display


def console() -> Console:
    """The console for standard error, with live bars on a terminal, and in a notebook that can show them."""
    if "ipykernel" in sys.modules:
        live = find_spec("ipywidgets") is not None
        return Console(force_jupyter=True) if live else Console(force_terminal=False, force_jupyter=False)
    return Console(stderr=True)
