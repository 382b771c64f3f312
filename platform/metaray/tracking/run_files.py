"""The files of a finished run that people look at, for any tracker: result, learning curve, what adaptation does."""

import tempfile
from pathlib import Path

from metaray.data.preprocessing import TablePreprocessing
from metaray.experiment.experiment import Experiment
from metaray.learners.loading import load_learner
from metaray.plots.function_fits import draw_fits, fits_of
from metaray.plots.learning_curve import draw_learning_curve
from metaray.records.result import RESULT
from metaray.records.run import LEARNER, PROFILE, Run
from metaray.tracking.tracker import Tracker

EPISODES = "meta-test.csv"
"""Name of the table with the scores of the single meta-test episodes."""


def log_files(experiment: Experiment, run: Run, tracker: Tracker) -> None:
    """Send the result of a run, and its plots, to a tracker.

    Args:
        experiment: Experiment that was trained.
        run: The finished run.
        tracker: Tracker whose record of the run is open.
    """
    with tempfile.TemporaryDirectory() as scratch:
        curve = Path(scratch) / "learning_curve.png"
        draw_learning_curve(run.metrics, curve, title=f"{experiment.name}: {experiment.protocol}")
        tracker.log_file(curve)
        tracker.log_text(run.storage.read(RESULT).decode(), RESULT)
        if (judged := run.judged) is not None:
            tracker.log_text(judged.csv(), EPISODES)
        if run.profile is not None:
            tracker.log_file(run.storage.download(PROFILE, Path(scratch) / PROFILE))
        _log_fit(experiment, run, tracker, Path(scratch))


def _log_fit(experiment: Experiment, run: Run, tracker: Tracker, scratch: Path) -> None:
    """A picture of what adaptation does, where tasks are functions that can be drawn."""
    source, plan = experiment.source, experiment.evaluation
    # Asked first, since it needs no files: a run is uploaded where its data are not.
    if not (source.task.is_curve and source.feature_shape == (1,)):
        return
    if isinstance(source.preprocessing, TablePreprocessing):
        return  # episodes hold scaled numbers, and pictures show those that users have
    learner = load_learner(run.storage.download(LEARNER, scratch / LEARNER), trust=["*"])
    picture = scratch / "fit.png"
    title = f"{experiment.name}: meta-test tasks, {experiment.protocol}"
    draw_fits(fits_of(learner, source, experiment.eval_spec, plan.seed), picture, title)
    tracker.log_file(picture)
