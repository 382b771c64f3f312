"""When a transductive learner's answers are doubted, and how that is said."""

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from torch import Tensor, nn

from metaray.algorithms import MAML, Algorithm, NearestNeighbor, ProtoNet, RelationNet
from metaray.algorithms.algorithm import start
from metaray.algorithms.context import Context, Tensors
from metaray.algorithms.task_shape import TaskShape
from metaray.data.preprocessing import ImagePreprocessing
from metaray.episodes.episode import EpisodeSpec
from metaray.errors import BatchMatters, InputError
from metaray.learners.joint_queries import doubt
from metaray.learners.learner import Learner
from metaray.models import MLP, Conv4, Model

SPEC = EpisodeSpec(ways=3, shots=2, queries=2)
JUDGED = "it was judged on 6 queries at once, 2 of each class, and now gets"


@pytest.mark.parametrize(
    ("ways", "found", "why"),
    [
        (3, [0, 1, 2, 0, 1, 2], None),
        (3, [0, 1, 2, 0, 1, 2, 1, 1, 1], None),
        (3, [0, 0, 0, 1, 1, 1], None),
        (3, [0], f"{JUDGED} 1."),
        (3, [0, 1, 2, 0, 1], f"{JUDGED} 5."),
        (3, [1] * 9, "in these it finds 1 of 3 classes."),
        (4, [0, 1] * 4, "in these it finds 2 of 4 classes."),
        (2, [1] * 4, "in these it finds 1 of 2 classes."),
    ],
)
def test_fewer_or_less_mixed_queries_than_it_was_judged_on(ways: int, found: list[int], why: str | None) -> None:
    said = doubt(SPEC, ways, found, len(found))
    assert (said is None) == (why is None)
    assert why is None or why in (said or "")


def test_in_regression_only_their_number_counts() -> None:
    spec = EpisodeSpec(shots=5, queries=4)
    assert doubt(spec, 1, None, 4) is None
    assert "judged on 4 queries at once, as a task had, and now gets 1." in (doubt(spec, 1, None, 1) or "")


def test_of_a_range_of_queries_the_fewest_count() -> None:
    ranged = EpisodeSpec(ways=(2, 4), shots=1, queries=(2, 5))
    assert doubt(ranged, 3, [0, 1, 2, 0, 1, 2], 6) is None
    told = "judged on 6 queries or more at once, 2 of each class, and now gets 5."
    assert told in (doubt(ranged, 3, [0, 1, 2, 0, 1], 5) or "")
    rest = EpisodeSpec(ways=3, shots=1, queries="rest")
    assert "judged on 3 queries or more at once" in (doubt(rest, 3, [0, 1], 2) or "")


def learner_of(algorithm: Algorithm, model: Model) -> Learner:
    preprocessing = ImagePreprocessing(height=16, width=16)
    _, meta = start(algorithm, model, TaskShape(preprocessing.feature_shape, SPEC.most_ways), seed=3)
    return Learner(algorithm, model, meta, preprocessing, SPEC)


def images(count: int) -> Any:
    return np.random.default_rng(0).integers(0, 256, (count, 16, 16), dtype=np.uint8)


CONV, NORMED, PLAIN = Conv4(channels=4), MLP(hidden=(5,)), MLP(hidden=(5,), batch_norm=False)
X, Y = images(6), list("aabbcc")


def test_a_single_query_is_warned_of_once_a_task_where_the_user_asked() -> None:
    learner = learner_of(MAML(batch_norm="transductive"), CONV)
    for _ in range(2):
        task = learner.adapt(X, Y)
        with pytest.warns(BatchMatters, match=f"{JUDGED} 1.*batch_norm=inductive") as told:
            task.predict(images(1))
        assert [warning.filename for warning in told] == [__file__]
        task.predict(images(1))  # warnings are errors here


@pytest.mark.parametrize("algorithm", [MAML(), ProtoNet(), RelationNet()], ids=str)
@pytest.mark.parametrize("model", [CONV, NORMED, PLAIN], ids=str)
def test_what_a_learner_says_of_itself_is_what_its_predictions_do(algorithm: Algorithm, model: Model) -> None:
    """Batch norm in a network matters, that of a relation module too; a network without any does not."""
    for protocol in ("transductive", "inductive"):
        learner = learner_of(replace_protocol(algorithm, protocol), model)
        said: list[str] = []
        task = replace(learner.adapt(X, Y), on_doubt=said.append)
        try:
            alone = task.predict_proba(images(1))[0]
        except InputError as refused:
            assert "single example" in str(refused) and learner.heeds_batch
            continue
        changes = bool(np.abs(alone - task.predict_proba(images(5))[0]).max() > 1e-4)
        assert learner.heeds_batch == changes == bool(said)


def replace_protocol(algorithm: Algorithm, protocol: str) -> Algorithm:
    return type(algorithm).parse({**algorithm.model_dump(), "batch_norm": protocol}, where="test")


def test_the_nearest_neighbour_asks_no_network() -> None:
    learner = learner_of(NearestNeighbor(batch_norm="transductive"), CONV)
    assert not learner.heeds_batch
    learner.adapt(X, Y).predict(images(1))


class Centred(Algorithm):
    """Transductive in a way of its own: distances to the mean of the queries."""

    kind = "centred"

    def heeds_batch(self, network: nn.Module) -> bool:
        """Yes."""
        return True

    def adapt(self, meta: Tensors, support: Any, context: Context) -> Tensors:
        """Nothing."""
        return {}

    def predict(self, meta: Tensors, adapted: Tensors, x: Tensor, context: Context) -> Tensor:
        """The same for all."""
        return (x - x.mean(dim=0)).flatten(1)[:, : context.ways]


def test_an_algorithm_that_is_transductive_otherwise_says_so() -> None:
    with pytest.warns(BatchMatters, match=JUDGED):
        learner_of(Centred(), PLAIN).adapt(X, Y).predict(images(2))


def test_an_inductive_learner_is_never_warned_of() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        task = learner_of(MAML(), CONV).adapt(X, Y)
        together = task.predict_proba(images(5))
        alone = np.concatenate([task.predict_proba(one[None]) for one in images(5)])
    np.testing.assert_allclose(alone, together, atol=1e-5)
