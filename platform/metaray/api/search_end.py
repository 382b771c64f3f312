"""The end of a search: the winner judged on meta-test and registered, and everything brought to MLflow."""

import json
import shlex
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from metaray.api.search_options import SearchOptions
from metaray.api.train import train
from metaray.displays.trial_table import trials_text
from metaray.displays.trials_display import settings_text
from metaray.errors import InputError, RunFailed, RunStopped, redacted
from metaray.experiment.experiment import Experiment
from metaray.imports import where_found
from metaray.plots.notebook import as_html
from metaray.plots.search import curves, draw_all
from metaray.records.events import Event, Listener
from metaray.records.journal import Metric
from metaray.records.result import Result
from metaray.records.storage import Storage
from metaray.retry import AWAY_WITHIN_S, patience, retry
from metaray.tracking.mlflow_run import MlflowRun
from metaray.tracking.registry import tag_version
from metaray.tracking.report import Report
from metaray.tracking.search_runs import SearchRuns
from metaray.tracking.server import MlflowServer, TrackingAway, Unreachable
from metaray.tracking.story import NOTE, search_note
from metaray.tuning import table
from metaray.tuning.ledger import Ledger
from metaray.tuning.listener import SearchListener
from metaray.tuning.search import Search
from metaray.tuning.trial import Trial, TrialScore, trial_name, winner_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WINNER = "winner.json"
FIGURES = "figures"


@dataclass(frozen=True)
class SearchReport:
    """The result of a search. It prints as the command line shows it; a notebook also shows the trials' curves.

    Attributes:
        name: Name of the search.
        search: Description of the search.
        trials: All trials of the search.
        winner: The trial with the best objective on meta-val.
        experiment: The experiment that the winner trained.
        report: Report of the winner's run: scores on meta-test, and the registered version.
        storage: Folder or URI of the search, with `trials.json`, `trials.parquet`, `winner.json` and `figures/`.
        tracked: MLflow run of the search.
        applied: Path of the file that the winner's experiment was written to; None if that was not asked for.
    """

    name: str
    search: Search
    trials: Sequence[Trial]
    winner: Trial
    experiment: Experiment
    report: Report
    storage: str
    tracked: MlflowRun
    applied: Path | None = None

    @property
    def tracking_run(self) -> str:
        """Id of the search's MLflow run."""
        return self.tracked.id

    def plot(self) -> "Figure":
        """Plot the trials' curves on meta-val, as a matplotlib figure; `.savefig(path)` writes it."""
        return curves(self.trials, self.search.optimises, f"{self.name}: {len(self.trials)} trials")

    def tree(self) -> dict[str, Any]:
        """The result in JSON types, as `metaray tune --json` prints it."""
        objective, best, seen, whole = self.search.optimises, self._best, *self._episodes
        tree: dict[str, Any] = {
            "search": self.name,
            "storage": redacted(self.storage),
            "tracking_run": self.tracking_run,
        }
        tree |= {"winner": self.winner.name, "settings": dict(self.winner.settings), "objective": objective.name}
        tree |= {"value": best.value, "half_width": best.half_width, "episodes": seen, "episodes_of_all_whole": whole}
        return tree | {"trials": table.as_rows(self.trials, objective), "run": self.report.tree()}

    def __str__(self) -> str:
        objective, best, (seen, whole) = self.search.optimises, self._best, self._episodes
        rows = table.as_rows(self.trials, objective)
        lines = [trials_text(rows, list(self.search.space), objective.name)]
        # Not in the table, which is to fit the terminal.
        lines += [f"{row['name']}: {row['status']}, {row['why']}" for row in rows if row["why"]]
        counts = Counter(trial.status for trial in self.trials)
        listed = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
        lines.append(f"trials: {len(self.trials)} ({listed}), {seen} episodes of {whole} that all would see")
        lines.append(f"winner: {self.winner.name}, {settings_text(self.winner.settings)}")
        value = f"{best.value:.4f} +- {best.half_width:.4f}"
        lines.append(f"winner meta-val {objective.name}: {value} after step {best.step}")
        lines.append(str(self.report))
        lines.append(f"search: {self.name} (MLflow {self.tracked.id} at {self.tracked.server.shown})")
        lines.append(f"files: {redacted(self.storage)}: trials.json, trials.parquet, winner.json, figures/")
        if self.applied is not None:
            found = where_found(self.experiment.model_dump(mode="json"))
            again = f"{found}{shlex.join(['metaray', 'train', str(self.applied)])}"
            lines.append(f"applied: {self.applied}; `{again}` trains it")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return as_html(str(self), self.plot())

    @property
    def _best(self) -> TrialScore:
        best = self.winner.best(self.search.optimises)
        assert best is not None
        return best

    @property
    def _episodes(self) -> tuple[int, int]:
        """How many all trials saw, and how many they would have seen if none had been stopped."""
        seen = sum(trial.own_episodes for trial in self.trials)
        return seen, self.search.population * self.winner.num_episodes


def finish_search(
    ledger: Ledger,
    search_runs: SearchRuns,
    options: SearchOptions,
    name: str,
    server: MlflowServer,
    listener: SearchListener,
    should_stop: Callable[[], bool],
) -> SearchReport:
    """Judge the winner on meta-test, and bring everything to MLflow. May be done again."""
    again = _command(options, name, ledger.search)
    if should_stop():
        raise RunStopped(f"stopped by a signal; `{again}` goes on")
    trials = ledger.trials()
    winner = winner_of(trials, ledger.search.optimises)
    if winner is None:
        whys = "; ".join(f"{trial.name}: {trial.why}" for trial in trials[:3])
        raise RunFailed(f"none of {len(trials)} trials came to an evaluation: {whys}")
    _bring(search_runs, server, again, listener, should_stop)
    experiment = ledger.entry(winner.number).experiment
    report = train(
        experiment,
        device=options.device,
        run=winner.name,
        storage=ledger.storage.root,
        tracking_uri=server.uri,
        register=options.register,
        promote=options.promote,
        link_encoder=options.link_encoder,
        progress=_Notes(listener),
        should_stop=should_stop,
    )
    files = _files(ledger, trials, winner, experiment)
    if options.apply is not None:
        _apply(options.apply, experiment)
    tags = _tags(ledger, name, search_runs.parent.id, winner)
    with server.asking():
        search_runs.tag(tags)
        search_runs.tag({"search.winner": "true"}, winner.number)
        if report.version is not None:
            tag_version(server, report.version.name, report.version.version, tags)
        search_runs.parent.log_metrics(_metrics(ledger, report.result))
        searched = f"{tags['search.space']}; {tags['search.searcher']}, {tags['search.trials']} trials"
        found = f"{winner.name}, {settings_text(winner.settings)}"
        note = search_note(experiment, report.result, search_runs.parent, searched=searched, found=found)
        search_runs.tag({NOTE: note})
    search_runs.attach(files)
    search_runs.parent.finish()
    return SearchReport(
        name=name,
        search=ledger.search,
        trials=ledger.trials(),
        winner=winner,
        experiment=experiment,
        report=report,
        storage=ledger.storage.root,
        tracked=search_runs.parent,
        applied=options.apply,
    )


def _metrics(ledger: Ledger, result: Result) -> list[Metric]:
    """Metrics of the search: what its winner is worth, and what it took to find it."""
    trials, now_ms = ledger.trials(), time.time_ns() // 1_000_000
    took = {
        "search/trials": float(len(trials)),
        "search/episodes": float(sum(trial.own_episodes for trial in trials)),
        "search/seconds": sum(trial.seconds for trial in trials),
    }
    # The winner's own speed, and the seconds of its last steps, are of no search.
    found = {key: value for key, value in result.metrics.items() if not key.startswith("speed/")}
    return [Metric(key, value, result.num_steps, now_ms) for key, value in (found | took).items()]


def _bring(
    search_runs: SearchRuns, server: MlflowServer, again: str, listener: SearchListener, should_stop: Callable[[], bool]
) -> None:
    """All trials to MLflow, however long it is away, within reason."""

    def tell() -> None:
        listener.on_note(f"MLflow at {server.shown!r} does not answer; waiting up to {AWAY_WITHIN_S:g} s for it")

    try:
        waits = patience(AWAY_WITHIN_S, enough=should_stop, once=tell)
        retry(search_runs.bring_all, on=(TrackingAway, Unreachable), waits=waits)
    except (RunFailed, InputError) as error:
        text = str(error).rstrip(".")
        raise RunFailed(f"the search is complete on disk, but MLflow lacks it: {text}. `{again}` uploads it") from error


def _files(ledger: Ledger, trials: Sequence[Trial], winner: Trial, experiment: Experiment) -> dict[str, bytes]:
    """What is to be known of the search, written into its folder."""
    search = ledger.search
    files = {
        "trials.json": table.to_json(trials, search.optimises),
        "trials.parquet": table.to_parquet(trials, search.optimises),
        WINNER: experiment.to_json().encode(),
    }
    title = f"{search.experiment.name}: {search.searcher}, {len(trials)} trials"
    with tempfile.TemporaryDirectory() as scratch:
        figures = {
            path.name: path.read_bytes()
            for path in draw_all(trials, search.logs, search.optimises, Path(scratch), title)
        }
    for name, data in files.items():
        ledger.storage.write(name, data)
    for name, data in figures.items():
        ledger.storage.write(f"{FIGURES}/{name}", data)
    return files | figures


def _apply(path: Path, experiment: Experiment) -> None:
    """Write the winner's experiment, whole or not at all."""
    Storage(str(path.parent)).write(path.name, experiment.to_json().encode())


def _tags(ledger: Ledger, name: str, parent: str, winner: Trial) -> dict[str, str]:
    search = ledger.search
    space = ", ".join(f"{key}={domain.expression()}" for key, domain in search.space.items())
    best = winner.best(search.optimises)
    assert best is not None
    return {
        "search": name,
        "search.run_id": parent,
        "search.space": space,
        "search.searcher": search.searcher,
        "search.scheduler": search.scheduler,
        "search.trials": str(len(ledger.numbers())),
        "search.winning_trial": trial_name(winner.number),
        "search.winning_settings": json.dumps(dict(winner.settings)),
        f"search.meta_val.{search.optimises.name}": f"{best.value:.6g} +- {best.half_width:.2g}",
    }


def _command(options: SearchOptions, name: str, search: Search) -> str:
    """What to type to go on."""
    found = where_found(search.experiment.model_dump(mode="json"))
    where = ["--tracking-uri", redacted(options.tracking_uri)] if options.tracking_uri else []
    return found + shlex.join(["metaray", "tune", "--run", name, "--storage", redacted(options.storage), *where])


@final
class _Notes(Listener):
    """What the winner's run says while it is judged, as notes of the search."""

    def __init__(self, listener: SearchListener) -> None:
        self._listener = listener

    def on_event(self, event: Event) -> None:
        if event.kind == "note":
            self._listener.on_note(event.text)

    def close(self) -> None:
        pass
