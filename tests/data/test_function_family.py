"""Functions as tasks: exact, reproducible, and as many as one likes."""

import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metaray.data import SOURCES, FunctionFamily
from metaray.data.draws import SPLITS, Draws, Split
from metaray.data.function_family import FAMILIES, line, sinusoid
from metaray.data.task import Task, same_examples
from metaray.errors import InputError
from metaray.imports import dump_kind, parse_kind
from metaray.tasks import Regression


def task_of(
    source: FunctionFamily, index: int = 0, split: Split = "meta-train", *, shots: int = 5, queries: int = 7
) -> Task:
    return source.sample_task(Draws(3, split, index), split, ways=1, shots=shots, queries=queries)


@given(
    index=st.integers(0, 2**64 - 1),
    split=st.sampled_from(SPLITS),
    shots=st.integers(1, 9),
    queries=st.integers(1, 9),
    family=st.sampled_from(list(FAMILIES)),
    oracle=st.booleans(),
    noise=st.sampled_from([0.0, 0.3]),
)
@settings(max_examples=60)
def test_a_task(index: int, split: Split, shots: int, queries: int, family: Any, oracle: bool, noise: float) -> None:
    source = FunctionFamily(family=family, oracle=oracle, noise=noise)
    task = task_of(source, index, split, shots=shots, queries=queries)
    features = 3 if oracle else 1
    assert source.feature_shape == (features,) and source.task == Regression()
    assert task.support.x.shape == (shots, features) and task.query.x.shape == (queries, features)
    assert task.support.y.shape == (shots, 1) and task.query.y.shape == (queries, 1)
    assert {array.dtype for side in task[:2] for array in side} == {np.dtype(np.float32)}
    assert task.class_ids.tolist() == [0] and task.class_ids.dtype == np.int64
    x = np.concatenate([task.support.x, task.query.x])[:, 0]
    assert (x >= -5).all() and (x <= 5).all()
    again = task_of(source, index, split, shots=shots, queries=queries)
    assert same_examples(task, again)
    more = task_of(source, index, split, shots=shots, queries=queries + 1)
    assert np.array_equal(more.support.x, task.support.x) and np.array_equal(more.support.y, task.support.y)


@pytest.mark.parametrize(("family", "value"), [("sinusoid", sinusoid), ("line", line)])
def test_the_oracle_is_told_the_function(family: Any, value: Any) -> None:
    source = FunctionFamily(family=family, oracle=True)
    low, high = np.array([getattr(source, name) for name in FAMILIES[family].parameters]).T
    drawn = []
    for index in range(300):
        task = task_of(source, index)
        rows = np.concatenate([task.support.x, task.query.x]).astype(np.float64)
        assert (rows[:, 1:] == rows[0, 1:]).all(), "one function a task"
        expected = value(rows[0, 1:], rows[:, 0])
        np.testing.assert_allclose(np.concatenate([task.support.y, task.query.y])[:, 0], expected, rtol=1e-5, atol=1e-5)
        drawn.append(rows[0, 1:])
    found = np.array(drawn)
    assert (found >= low - 1e-6).all() and (found <= high + 1e-6).all()
    np.testing.assert_allclose(found.mean(0), (low + high) / 2, atol=4 * float((high - low).max()) / np.sqrt(12 * 300))


def test_the_oracle_sees_the_same_tasks() -> None:
    task, told = task_of(FunctionFamily()), task_of(FunctionFamily(oracle=True))
    assert np.array_equal(told.support.x[:, :1], task.support.x) and np.array_equal(told.query.y, task.query.y)


def test_a_known_task() -> None:
    """Tasks are part of what a run's record means: another number here asks for another RECIPE_VERSION."""
    task = FunctionFamily(oracle=True).sample_task(Draws(0, "meta-test", 7), "meta-test", ways=1, shots=1, queries=1)
    words = Draws(0, "meta-test", 7).uniform(4)
    amplitude, phase, x = 0.1 + 4.9 * words[0], np.pi * words[1], np.float32(-5 + 10 * words[2])
    np.testing.assert_array_equal(task.support.x, np.array([[x, amplitude, phase]], dtype=np.float32))
    np.testing.assert_array_equal(task.support.y, np.array([[amplitude * np.sin(x - phase)]], dtype=np.float32))
    assert task.query.x[0, 0] == np.float32(-5 + 10 * words[3])


def test_splits_are_other_functions() -> None:
    tasks = [task_of(FunctionFamily(), index, split) for split in SPLITS for index in range(20)]
    assert len({task.support.y.tobytes() for task in tasks}) == len(tasks)


def test_noise_is_normal_and_added_to_all_targets() -> None:
    plain, noisy = FunctionFamily(), FunctionFamily(noise=0.5)
    exact, found = (task_of(source, shots=1, queries=1).support.x for source in (plain, noisy))
    assert np.array_equal(exact, found)
    source = FunctionFamily(family="line", slope=(0, 0), intercept=(0, 0), noise=0.5)
    task = task_of(source, shots=4000, queries=4000)
    for y in (task.support.y, task.query.y):
        assert abs(y.mean()) < 0.04 and abs(y.std() - 0.5) < 0.03
        assert abs((np.abs(y) < 0.5).mean() - 0.6827) < 0.03
    assert not np.array_equal(task.support.y, task.query.y)


def test_ranges_of_no_width() -> None:
    task = task_of(FunctionFamily(amplitude=(2, 2), phase=(1, 1)))
    np.testing.assert_allclose(task.support.y, 2 * np.sin(task.support.x - 1), rtol=1e-5, atol=1e-6)


def test_it_has_no_classes_and_no_end() -> None:
    source = FunctionFamily()
    assert (
        source.num_classes("meta-train") == 0
        and source.class_name(0) == "sinusoid, amplitude 0.1 to 5, phase 0 to 3.14159"
    )
    assert source.places("meta-val", np.array([[0], [0]])).tolist() == [[0], [0]]
    assert source.count_tasks("meta-test", ways=1, shots=1, queries=1) >= 2**64
    source.check("meta-val", ways=1, shots=10_000, queries=10_000)
    with pytest.raises(
        InputError, match="5 ways asked for, but a task of function_family is one function: ways must be 1"
    ):
        source.check("meta-train", ways=5, shots=1, queries=1)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"family": "sinusiod"}, "unknown value 'sinusiod'. Did you mean 'sinusoid'"),
        ({"amplitude": [5, 1]}, "amplitude: a range goes from its lower to its upper end (got 5 to 1)"),
        ({"amplitude": 3}, "amplitude: Input should be a valid tuple (got 3)"),
        ({"slope": [0, 1e39]}, "slope: the ends and the width of a range must be finite in 32 bits (got 0 to 1e+39)"),
        ({"x": [-3e38, 3e38]}, "x: the ends and the width of a range must be finite in 32 bits (got -3e+38 to 3e+38)"),
        ({"noise": -1}, "noise: Input should be greater than or equal to 0 (got -1)"),
        ({"phases": [0, 1]}, "unknown key 'phases'. Did you mean 'phase'"),
    ],
)
def test_wrong_fields(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        FunctionFamily.parse(fields, where="source")


def test_the_fingerprint_covers_every_field() -> None:
    changed: list[dict[str, Any]] = [
        {},
        {"family": "line"},
        {"amplitude": (1, 2)},
        {"phase": (1, 2)},
        {"slope": (1, 2)},
        {"intercept": (1, 2)},
        {"x": (1, 2)},
        {"noise": 1},
        {"oracle": True},
    ]
    assert len(changed) == 1 + len(FunctionFamily.model_fields)
    assert len({FunctionFamily(**fields).fingerprint for fields in changed}) == len(changed)


def test_through_json() -> None:
    source = FunctionFamily(family="line", slope=(0, 1), noise=0.1)
    tree = dump_kind(source, SOURCES)
    assert tree["kind"] == "function_family" and parse_kind(tree, SOURCES, FunctionFamily, what="source") == source


def test_samplers_of_it_need_no_torch() -> None:
    code = "import sys; from metaray.data import FunctionFamily as F; from metaray.episodes.episode import EpisodeSpec;"
    code += "from metaray.episodes.sampler import sample_meta_batch as s;"
    code += "b = s(F(), EpisodeSpec(shots=2, queries=3), 'meta-train', 0, range(4));"
    code += "sys.exit(b.query_y.shape != (4, 3, 1) or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
