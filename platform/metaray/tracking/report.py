"""How a run ended: what `metaray train` prints, as an object."""

import json
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metaray.errors import RunFailed
from metaray.learners.learner import Learner
from metaray.learners.loading import load_learner
from metaray.plots.learning_curve import learning_curve
from metaray.plots.notebook import as_html
from metaray.records.judged import Judged
from metaray.records.result import Result, in_short
from metaray.records.run import LEARNER, PROFILE, Run
from metaray.tracking.mlflow_run import MlflowRun
from metaray.tracking.promotion import Decision
from metaray.tracking.registry import ModelVersion

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SINGLE = "single_queries"
"""Tag of a version with the loss of score when queries come one at a time."""


@dataclass(frozen=True)
class Report:
    """How a run ended. It prints as the command line shows it; a notebook also shows its learning curve.

    Attributes:
        run: The run: its name, folder, metrics and checkpoints.
        result: Scores and measurements of the run.
        tracked: MLflow run that tracks the run; None without MLflow.
        version: Registered version of the learner; None if none was registered.
        decision: Whether the version became @champion, and why.
        notes: Further messages for the user, one sentence each.
    """

    run: Run
    result: Result
    tracked: MlflowRun | None = None
    version: ModelVersion | None = None
    decision: Decision | None = None
    notes: tuple[str, ...] = ()

    @property
    def tracking_run(self) -> str | None:
        """Id of the MLflow run; None without MLflow."""
        return None if self.tracked is None else self.tracked.id

    @property
    def learner(self) -> Learner:
        """The best learner of the run, read from its folder; `.adapt(x, y)` adapts it to a new task."""
        with tempfile.TemporaryDirectory() as scratch:
            folder = self.run.storage.download(LEARNER, Path(scratch) / LEARNER)
            return load_learner(folder, trust=["*"])  # the user's own run

    @cached_property
    def judged(self) -> Judged | None:
        """Scores of the single meta-test episodes: by size and by group, and as a table; None if they were not kept."""
        return self.run.judged

    def plot(self) -> "Figure":
        """Plot the learning curve, as a matplotlib figure; `.savefig(path)` writes it."""
        return learning_curve(self.run.metrics, title=f"{self.run.name}: {self.result.protocol}")

    def tree(self) -> dict[str, Any]:
        """The report in JSON types, as `metaray train --json` prints it."""
        tree: dict[str, Any] = json.loads(self.result.to_json())
        del tree["meta_val_scores"]  # hundreds of numbers, kept in the run's result.json
        tree["baselines"] = in_short(self.result.baselines)
        tree["breakdown"] = self.judged.tree() if self.judged else {}
        tree |= {"run": self.run.name, "learner": self._learner_shown}
        tree["tracking_uri"] = None if self.tracked is None else self.tracked.server.shown
        tree |= {"tracking_run": self.tracking_run, "registered": self._registered}
        tree["champion"] = self.version is not None and "champion" in self.version.aliases
        tree["decision"] = self.decision.reason if self.decision else None
        tree["single_queries"] = self._single
        tree["profile"] = f"{self.run.storage.shown}/{PROFILE}" if self.run.profile else None
        tree["notes"] = list(self.notes)
        return tree

    def __str__(self) -> str:
        result, quality = self.result, self.result.quality
        profile = self.run.profile
        lines = [
            *([] if profile is None else [profile]),
            f"protocol: {result.protocol}",
            f"meta-val {quality}: {result.meta_val}, best of the run, after step {result.best_step}",
        ]
        lines += [f"{name}: {told}" for name, told in result.rivals]
        lines.append(f"meta-test {quality} before training: {result.before_training}")
        if result.before_adaptation is not None:
            lines.append(f"meta-test {quality} before adaptation: {result.before_adaptation}")
        lines += [
            f"{name}: {told}" for name, told in (*(self.judged.told() if self.judged else ()), *result.scores_told)
        ]
        lines.append(f"meta-test {quality}: {result.meta_test}")
        lines.append(
            f"speed: {result.episodes_per_s:.1f} episodes/s, {100 * result.wait_share:.1f}% of step time waiting for "
            f"episodes, {result.seconds:.0f} s in all"
        )
        lines += self._became()
        where = self.run.storage.shown
        if self.tracked is not None:
            where = f"MLflow {self.tracked.id} at {self.tracked.server.shown}"
        lines += [f"run: {self.run.name} ({where})", f"parameters sha256: {result.parameters_sha256}"]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])

    def _repr_html_(self) -> str:
        return as_html(str(self), self.plot())

    def _became(self) -> list[str]:
        """What became of the learner."""
        lines = [f"registered: {self._registered}"] if self.version else [f"learner: {self._learner_shown}"]
        if self._single:
            lines.append(f"one query at a time: {self._single}")
        if self.decision is not None:
            lines.append(f"champion: {'yes' if self.decision.promote else 'no'}, {self.decision.reason}")
            if self.version is not None and not self.decision.promote:
                by_hand = f"metaray registry promote {self.version.name} {self.version.version}"
                lines.append(f"    --promote, or `{by_hand}`, gives it the alias all the same")
        return lines

    @property
    def _learner_shown(self) -> str:
        return f"{self.run.storage.shown}/{LEARNER}"

    @property
    def _registered(self) -> str | None:
        if self.version is None:
            return None
        return f"{self.version.uri}{' (@champion)' if 'champion' in self.version.aliases else ''}"

    @property
    def _single(self) -> str | None:
        return None if self.version is None else self.version.tags.get(SINGLE)


class NotUploaded(RunFailed):
    """A run is trained and complete in its storage, but a tracker did not accept all of it.

    Attributes:
        report: Report of the run.
    """

    def __init__(self, message: str, report: Report) -> None:
        super().__init__(message)
        self.report = report
