"""Reports: a run, a search, a learner or a comparison as one HTML file."""

import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import metaray
from metaray.api.evaluate import Changes, evaluate, judged_experiment, split_of
from metaray.api.runs import require_run
from metaray.config import NAME
from metaray.data.draws import Split
from metaray.displays.progress import JudgingProgress, shown_judging
from metaray.errors import InputError, RunFailed, redacted, unknown
from metaray.records.history import History
from metaray.records.result import rivals_told
from metaray.records.run import Run
from metaray.records.storage import Storage
from metaray.reports.blocks import Page
from metaray.reports.facts import Scored
from metaray.reports.measuring import Show, measure
from metaray.reports.of_model import facts_of_model
from metaray.reports.of_run import Measure, facts_of_run
from metaray.reports.of_search import facts_of_search
from metaray.reports.page import require_place, write_page
from metaray.reports.run_page import run_page
from metaray.reports.search_page import search_page
from metaray.tasks.score import SCORES
from metaray.tracking.history import MODEL_REPORT, REPORT, history_of, log_report
from metaray.tracking.search_runs import search_run
from metaray.tracking.server import MlflowServer
from metaray.training.device import choose_device
from metaray.tuning.ledger import read_header
from metaray.tuning.overview import is_search, trials_of

FORMS = "models:/NAME@ALIAS, models:/NAME/VERSION, runs:/ID/PATH or a learner's folder"
EPISODES = 100
CURVES = [f"{split}/{name}" for name in ("loss", *SCORES) for split in ("train", "val")]
RunIn = Callable[[MlflowServer], str | None]
"""The id of the run in an MLflow that is to have the report; None where there is none."""


@dataclass(frozen=True)
class ReportFile:
    """A report that was written to a file.

    Attributes:
        path: Path of the HTML file.
        kind: Kind of the report's subject: "run", "search" or "model".
        name: Name of that run, search or model.
        tracking_run: Id of the MLflow run that holds the report as an artifact; None without one.
        tracking_uri: URI of the MLflow server, without secrets; None without one.
    """

    path: Path
    kind: str
    name: str
    tracking_run: str | None = None
    tracking_uri: str | None = None

    @property
    def artifact(self) -> str:
        """Name of the report as an artifact in MLflow."""
        return MODEL_REPORT if self.kind == "model" else REPORT

    def tree(self) -> dict[str, Any]:
        """The report's description in JSON types, as `metaray report --json` prints it."""
        tree: dict[str, Any] = {"report": str(self.path), "kind": self.kind, "name": self.name}
        return tree | {"tracking_run": self.tracking_run, "tracking_uri": self.tracking_uri}

    def __str__(self) -> str:
        lines = [f"report: {self.path} ({self.path.stat().st_size // 1024} KiB)"]
        if self.tracking_run is not None:
            lines.append(f"logged: {self.artifact} of MLflow run {self.tracking_run} at {self.tracking_uri}")
        return "\n".join(lines)


class NotLogged(RunFailed):
    """A report that was written, but that MLflow did not accept.

    Attributes:
        report: The report that was written.
    """

    def __init__(self, message: str, report: ReportFile) -> None:
        super().__init__(message)
        self.report = report


@dataclass(frozen=True)
class _Asked:
    """What a report was asked for with."""

    target: str
    storage: str
    episodes: int
    part: Split
    device: str
    tracking_uri: str | None
    trust: tuple[str, ...]

    @property
    def command(self) -> str:
        """What makes the report again; it tells no secret."""
        words = ["metaray", "report", self.target]
        words += ["--storage", redacted(self.storage)] if self.storage != "runs" and not self.is_model else []
        words += ["--episodes", str(self.episodes)] if self.episodes != EPISODES else []
        words += ["--part", self.part] if self.part != "meta-test" else []
        words += ["--tracking-uri", redacted(self.tracking_uri)] if self.tracking_uri else []
        return shlex.join([*words, *(word for package in self.trust for word in ("--trust", package))])

    @property
    def is_model(self) -> bool:
        """Whether it names a learner, not a run."""
        return self.target.startswith(("models:", "runs:")) or Path(self.target, "learner.json").is_file()

    def measure(self, show: Show) -> Measure | None:
        """Judges a learner anew, as asked for; None where nobody wants that."""
        if self.episodes == 0:
            return None
        device = choose_device(self.device)
        return lambda learner, experiment: measure(
            learner, experiment, self.part, self.episodes, device=device, show=show
        )


def report(
    target: str | Path,
    *,
    out: str | Path | None = None,
    storage: str = "runs",
    episodes: int = EPISODES,
    part: str = "meta-test",
    device: str = "auto",
    tracking_uri: str | None = None,
    trust: Sequence[str] = (),
    log: bool = True,
    progress: JudgingProgress = True,
) -> ReportFile:
    """Write a report of a run, a search or a learner, as one self-contained HTML file.

    The report is made from records. What they do not hold, such as the accuracy by class, is computed by evaluating the
    learner again on the first episodes of a split. Whatever cannot be computed is listed as missing, together with what
    would provide it.

    Example: `metaray.report("mine").path`.

    Args:
        target: Name of a run or of a search, `SEARCH/trial-0000`, or a learner as for `metaray.load`.
        out: Path of the HTML file; None takes `report-NAME.html` in the working directory.
        storage: Folder or URI that holds the folders of all runs.
        episodes: Number of episodes to evaluate on; 0 evaluates nothing.
        part: Split whose classes are used: "meta-val" or "meta-test".
        device: "auto" (a GPU where there is one), "cpu" or "cuda".
        tracking_uri: URI of MLflow; None takes MLFLOW_TRACKING_URI, else `mlflow.db` in the working directory.
        trust: Packages besides metaray whose code the run, search or learner may name.
        log: Whether to log the report as an artifact of the MLflow run, if there is one.
        progress: Whether to show progress; or a function that is called with what is evaluated, and with the numbers of
            finished and of all episodes.

    Returns:
        The written report: its path, what it is about, and the MLflow run that holds it.

    Raises:
        InputError: If nothing has that name (the message lists the names there are), or the file cannot be written.
        NotLogged: If the file was written, but MLflow did not accept it.
    """
    if episodes < 0 or episodes == 1:
        raise InputError(f"episodes: at least 2, or 0 to judge nothing (got {episodes})")
    asked = _Asked(str(target), storage, episodes, split_of(part), device, tracking_uri, tuple(trust))
    choose_device(device)
    path = Path(out) if out is not None else Path(f"report-{_file_name(asked.target)}.html")
    require_place(path)
    with shown_judging(progress) as show:
        kind, page, run_in = _made(asked, show)
    write_page(page, path)
    written = ReportFile(path, kind, redacted(asked.target))
    return _logged(written, run_in, tracking_uri) if log else written


def _made(asked: _Asked, show: Show) -> tuple[str, Page, RunIn]:
    """What it is of, the page, and what finds its MLflow run."""
    if asked.is_model:
        return _of_model(asked, show)
    name, place = asked.target, _place(asked)
    if is_search(place):
        again = shlex.join(["metaray", "tune", "--run", name, "--storage", redacted(asked.storage)])
        searched = facts_of_search(place, name, report=asked.command, again=again, trust=asked.trust)
        return "search", search_page(searched), lambda server: search_run(server, read_header(place, asked.trust))
    facts = facts_of_run(place, name, report=asked.command, measure=asked.measure(show), trust=asked.trust)
    run = Run(name.rpartition("/")[2], place)
    return "run", run_page(facts), lambda server: run.tracking_run


def _place(asked: _Asked) -> Storage:
    """The folder of a run, a search, or a trial of one.

    Raises:
        InputError: If there is none; it lists those there are.
    """
    search, slash, trial = asked.target.partition("/")
    root = Storage(asked.storage)
    try:
        if not NAME.fullmatch(search):
            raise InputError(f"{asked.target!r} is neither the name of a run or a search, nor a learner")
        require_run(root, search)
    except InputError as error:
        raise InputError(f"{error} A learner is {FORMS}.") from None
    place = root.child(search)
    if not slash:
        return place
    if not is_search(place) or trial not in trials_of(place):
        raise unknown(f"trial of {search}:", trial, trials_of(place) if is_search(place) else [])
    return place.child(trial)


def _of_model(asked: _Asked, show: Show) -> tuple[str, Page, RunIn]:
    learner = metaray.load(asked.target, tracking_uri=asked.tracking_uri, trust=asked.trust)
    history, experiment, refused = History(), None, None
    if asked.target.startswith(("models:", "runs:")):
        history = history_of(MlflowServer.of(asked.tracking_uri), asked.target, CURVES)
    try:
        count = max(2, asked.episodes)
        experiment = judged_experiment(asked.target, learner, Changes(), asked.part, count, asked.trust)
    except InputError as error:
        refused = error
    scored = None if history.result or experiment is None or not asked.episodes else _scored(asked, show)
    facts = facts_of_model(
        asked.target,
        learner,
        history,
        report=asked.command,
        experiment=experiment,
        refused=refused,
        measure=asked.measure(show),
        scored=scored,
    )
    return "model", run_page(facts), lambda server: history.run_id


def _scored(asked: _Asked, show: Show) -> Scored:
    """How well a learner does of which no run is known."""
    found = evaluate(
        asked.target,
        episodes=asked.episodes,
        part=asked.part,
        device=asked.device,
        tracking_uri=asked.tracking_uri,
        trust=asked.trust,
        progress=show,
    )
    baselines = {name: rival.score for name, rival in found.baselines.items()}
    rivals = rivals_told(found.baselines, found.compared)
    return Scored(found.split, found.score, found.before_adaptation, baselines, rivals)


def _logged(written: ReportFile, run_in: RunIn, tracking_uri: str | None) -> ReportFile:
    server = MlflowServer.of(tracking_uri)
    try:
        run_id = run_in(server)
        if run_id is None:
            return written
        log_report(server, run_id, written.path, written.artifact)
    except (RunFailed, InputError) as error:
        told = f"the report is written to {written.path}, but MLflow does not have it: {error}"
        raise NotLogged(f"{told}; --no-log writes the file alone", written) from error
    return replace(written, tracking_run=run_id, tracking_uri=server.shown)


def _file_name(target: str) -> str:
    text = re.sub(r"^(models|runs):/+", "", redacted(target))
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip(".-") or "learner"
