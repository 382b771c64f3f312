"""Adapted tasks that grow: for every algorithm the same as adapting to everything at once, or refused by name."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

import metaray
from metaray.algorithms import ALGORITHMS, Algorithm
from metaray.algorithms.algorithm import start
from metaray.algorithms.task_shape import TaskShape
from metaray.data.preprocessing import VectorPreprocessing
from metaray.episodes.episode import EpisodeSpec
from metaray.errors import InputError
from metaray.learners.learner import AdaptedTask, Learner
from metaray.models import MLP
from metaray.tasks import TASK_KINDS
from tests.conformance.bench import SETTINGS, Trial, every

SIZE, WAYS = 4, 3
TOLERANCE = 1e-6
SUMMARISED = {kind for kind, cls in ALGORITHMS.items() if cls.summary is not Algorithm.summary}
"""Kinds of which a summary is enough where the network has no batch norm."""
GROWING_HEADS = {"baseline", "baselinepp", "proto_maml"}
"""Kinds with inner steps whose tasks can take new classes."""

pytestmark = pytest.mark.filterwarnings("ignore::metaray.errors.BatchMatters")


class Examples(NamedTuple):
    """Raw inputs and targets."""

    x: NDArray[np.float64]
    y: list[Any]

    def part(self, start: int = 0, end: int | None = None) -> "Examples":
        return Examples(self.x[start:end], self.y[start:end])


def learner_of(trial: Trial, *, batch_norm: bool) -> Learner:
    algorithm = ALGORITHMS[trial.kind].parse({"batch_norm": trial.protocol, **SETTINGS.get(trial.kind, {})}, where="")
    task = TASK_KINDS[trial.task]()
    spec = EpisodeSpec(ways=WAYS if task.labels_vary else 1, shots=2, queries=2)
    classes = WAYS + 2 if task.labels_vary else 0
    shape = TaskShape((SIZE,), spec.most_ways, task, classes, VectorPreprocessing(size=SIZE))
    model = MLP(hidden=(8, 6), batch_norm=batch_norm)
    _, meta = start(algorithm, model, shape, seed=2)
    return Learner(algorithm, model, meta, VectorPreprocessing(size=SIZE), spec, task=task, classes=classes)


def examples_of(learner: Learner) -> Examples:
    """Twelve, whose first six are of each class, the last three perhaps of a new one."""
    random = np.random.default_rng(0)
    x = random.normal(size=(12, SIZE))
    if not learner.task.has_classes:
        return Examples(x, list(random.normal(size=12)))
    if not learner.task.labels_vary:
        return Examples(x, [0, 1] * 6)
    return Examples(x, [*"abcabcabc", *("aab" if learner.ways else "dde")])


def answers(task: AdaptedTask, x: NDArray[np.float64]) -> NDArray[np.float32]:
    return task.predict_proba(x) if task.classes else task.predict_values(x)


def assert_same(task: AdaptedTask, other: AdaptedTask) -> None:
    queries = np.random.default_rng(1).normal(size=(7, SIZE))
    assert task.classes == other.classes
    np.testing.assert_allclose(answers(task, queries), answers(other, queries), rtol=0, atol=TOLERANCE)


@every()
def test_extended_is_adapted_to_all_at_once(trial: Trial) -> None:
    for batch_norm in (False, True) if trial.protocol == "inductive" else (True,):
        learner = learner_of(trial, batch_norm=batch_norm)
        all_of_it = examples_of(learner)
        first = learner.adapt(*all_of_it.part(end=6))
        before = answers(first, all_of_it.x)
        task = first.extend(*all_of_it.part(6, 7)).extend(*all_of_it.part(7))
        assert_same(task, learner.adapt(*all_of_it))
        assert np.array_equal(answers(first, all_of_it.x), before), "the old task is another one now"


@every()
def test_a_saved_task_is_extended_by_its_summary_or_its_examples(trial: Trial, tmp_path: Path) -> None:
    for batch_norm in (False, True) if trial.protocol == "inductive" else (True,):
        learner = learner_of(trial, batch_norm=batch_norm)
        all_of_it = examples_of(learner)
        first, whole = learner.adapt(*all_of_it.part(end=6)), learner.adapt(*all_of_it)
        first.save(tmp_path / "with", support=True)
        loaded = metaray.load_task(tmp_path / "with").extend(*all_of_it.part(6, 8))
        loaded.save(tmp_path / "again", support=True)
        assert_same(metaray.load_task(tmp_path / "again").extend(*all_of_it.part(8)), whole)

        first.save(tmp_path / "without")
        short = metaray.load_task(tmp_path / "without")
        assert short.kept.support is None
        # Under the transductive protocol heads hold the examples until there are queries.
        waits = trial.protocol == "transductive" and trial.kind in SUMMARISED - {"cnp", "nearest_neighbor"}
        summarised = trial.kind in SUMMARISED and not (batch_norm and trial.kind != "nearest_neighbor")
        if waits or summarised:
            assert_same(short.extend(*all_of_it.part(6)), whole)
        else:
            with pytest.raises(InputError, match=rf"a {trial.kind} learner.*support=True"):
                short.extend(*all_of_it.part(6))


@every(protocols=("inductive",))
def test_going_on_looks_at_further_examples_alone(trial: Trial, tmp_path: Path) -> None:
    learner = learner_of(trial, batch_norm=False)
    all_of_it = examples_of(learner)
    first = learner.adapt(*all_of_it.part(end=9))
    if not learner.algorithm.gradient_steps and trial.kind not in SUMMARISED:
        with pytest.raises(InputError, match=trial.kind):
            first.extend(*all_of_it.part(9), how="continue")
        return
    first.save(tmp_path / "task")
    short = metaray.load_task(tmp_path / "task")
    task = short.extend(*all_of_it.part(9), how="continue")
    assert task.kept.support is None
    assert_same(task, first.extend(*all_of_it.part(9), how="continue"))
    if trial.kind in SUMMARISED:
        assert_same(task, learner.adapt(*all_of_it))
        return
    no_steps = learner.adapt(*all_of_it.part(end=9), inner_steps=0).extend(*all_of_it.part(9), how="continue")
    queries = all_of_it.x[:5]
    assert not np.allclose(answers(task, queries), answers(no_steps, queries), atol=1e-7), "no step was taken"


@pytest.mark.parametrize("kind", ["maml", "fomaml", "anil", "boil", "meta_sgd", "cavia", "proto_maml"])
def test_continued_inner_steps_start_where_the_task_is(kind: str) -> None:
    """Of algorithms whose steps do not depend on how many were taken before."""
    learner = learner_of(Trial(kind, "classification", "inductive"), batch_norm=False)
    known = examples_of(learner).part(end=9)
    twice = learner.adapt(*known, inner_steps=1).extend(*known, how="continue")
    assert_same(twice, learner.adapt(*known, inner_steps=2))


@pytest.mark.parametrize("kind", ALGORITHMS)
def test_new_classes_where_there_is_room_for_them(kind: str) -> None:
    learner = learner_of(Trial(kind, "classification", "inductive"), batch_norm=False)
    first, random = learner.adapt(*examples_of(learner).part(end=6)), np.random.default_rng(3)
    x, y = random.normal(size=(2, SIZE)) + 9, ["new", "a"]
    for how in ("together", "continue") if kind in SUMMARISED | GROWING_HEADS or learner.ways else ("together",):
        if learner.ways is not None:
            with pytest.raises(InputError, match=rf"the new class 'new'.*3-way \(a {kind} learner.*'a', 'b', 'c'"):
                first.extend(x, y, how=how)
            continue
        grown = first.extend(x, y, how=how)
        assert grown.classes == ("a", "b", "c", "new") and first.classes == ("a", "b", "c")
        assert grown.predict_proba(x).shape == (2, 4)


def test_what_has_a_closed_form_has_a_summary() -> None:
    assert {
        "cnp",
        "matchingnet",
        "metaoptnet_ridge",
        "metaoptnet_svm",
        "nearest_neighbor",
        "protonet",
        "r2d2",
        "relationnet",
    } <= SUMMARISED


def test_batch_norm_keeps_the_statistics_of_the_first_support() -> None:
    learner = learner_of(Trial("protonet", "classification", "inductive"), batch_norm=True)
    all_of_it = examples_of(learner)
    first = learner.adapt(*all_of_it.part(end=6))
    task = first.extend(*all_of_it.part(6), how="continue")
    kept = {name: one for name, one in task.adapted.items() if name.startswith("statistics:")}
    assert kept and all(one is first.adapted[name] for name, one in kept.items())
    x = learner.inputs(all_of_it.x)
    embedded = first.context.forward(
        learner.meta, x, {name.removeprefix("statistics:"): one for name, one in kept.items()}
    )
    for place, label in enumerate(task.classes):
        mean = embedded[[i for i, one in enumerate(all_of_it.y) if one == label]].mean(dim=0)
        np.testing.assert_allclose(task.adapted["prototypes"][place], mean.detach(), atol=TOLERANCE)
    # What it became is still what adapting to everything gives, since it holds its examples.
    assert_same(task.extend(*all_of_it.part(end=1)), learner.adapt([*all_of_it.x, all_of_it.x[0]], [*all_of_it.y, "a"]))
