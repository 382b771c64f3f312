"""Functions before and after adaptation."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from metaray.algorithms import CNP, MAML, Algorithm
from metaray.algorithms.algorithm import start
from metaray.algorithms.task_shape import TaskShape
from metaray.data import FunctionFamily
from metaray.data.draws import Split
from metaray.data.preprocessing import VectorPreprocessing
from metaray.episodes.episode import EpisodeSpec
from metaray.episodes.sampler import sample_episode
from metaray.errors import InputError
from metaray.learners.learner import Learner
from metaray.models import MLP
from metaray.plots.function_fits import DENSE, draw_fits, fit_of, fits_of
from metaray.tasks import Regression

SPEC = EpisodeSpec(shots=4, queries=3)


def untrained(algorithm: Algorithm) -> Learner:
    model = MLP(hidden=(8,), batch_norm=False)
    _, meta = start(algorithm, model, TaskShape((1,), 1, Regression()), seed=0)
    return Learner(algorithm, model, meta, VectorPreprocessing(size=1), SPEC, task=Regression())


class Scarce(FunctionFamily):
    """A source without as many queries as a picture would like."""

    def check(self, split: Split, *, ways: int, shots: int, queries: int) -> None:
        if queries > 3:
            raise InputError("no")


def test_the_tasks_are_those_of_meta_test() -> None:
    source, learner = FunctionFamily(), untrained(MAML(inner_lr=0.1))
    fits = fits_of(learner, source, SPEC, seed=2, count=2)
    assert len(fits) == 2
    for index, fit in enumerate(fits):
        episode = sample_episode(source, SPEC, "meta-test", 2, index)
        assert np.array_equal(fit.support_x, episode.task.support.x[:, 0])
        assert np.array_equal(fit.support_y, episode.task.support.y[:, 0])
        assert fit.y is not None and len(fit.x) == len(fit.y) == DENSE and (np.diff(fit.x) >= 0).all()
        after = learner.adapt(fit.support_x, fit.support_y).predict_values(fit.x)
        before = learner.adapt(fit.support_x, fit.support_y, inner_steps=0).predict_values(fit.x)
        assert np.array_equal(fit.after, after) and fit.before is not None and np.array_equal(fit.before, before)
        assert not np.array_equal(fit.after, fit.before)


def test_a_source_with_few_queries() -> None:
    (fit,) = fits_of(untrained(CNP()), Scarce(), SPEC, seed=0, count=1)
    assert len(fit.x) == 3 and fit.before is None


@pytest.mark.parametrize("count", [1, 3, 4])
def test_the_picture(count: int, tmp_path: Path) -> None:
    fits = fits_of(untrained(MAML(inner_lr=0.1)), FunctionFamily(), SPEC, seed=0, count=count)
    draw_fits(fits, tmp_path / "new" / "fit.png", "a $title$ with_marks")
    with Image.open(tmp_path / "new" / "fit.png") as picture:
        assert picture.format == "PNG"
        grey = np.asarray(picture.convert("L"))
        assert grey.min() < 64 and 0.5 < (grey > 250).mean() < 1


def test_a_picture_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    fits = fits_of(untrained(CNP()), Scarce(), SPEC, seed=0, count=1)
    with pytest.raises(InputError, match=r"file/fit\.png: can't write the picture: "):
        draw_fits(fits, tmp_path / "file" / "fit.png", "title")


def test_the_order_of_the_queries_does_not_matter() -> None:
    learner = replace(untrained(MAML(inner_lr=0.1)), inner_steps=3)
    support = (np.array([[0.0], [1.0]]), np.array([[1.0], [0.0]]))
    x, y = np.array([[2.0], [-1.0], [0.5]]), np.array([[1.0], [2.0], [3.0]])
    fit = fit_of(learner, support, x, y)
    assert fit.x.tolist() == [-1.0, 0.5, 2.0] and fit.y is not None and fit.y.tolist() == [2.0, 3.0, 1.0]
    unknown = fit_of(learner, support, x[[1, 2, 0]], None, inner_steps=0)
    assert unknown.y is None and unknown.before is not None and np.array_equal(unknown.after, unknown.before)
