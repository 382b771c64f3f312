"""What each kind of task asks for, and how it judges, reads and shows."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from metaray.algorithms import ALGORITHMS
from metaray.config import replace
from metaray.errors import InputError
from metaray.experiment.experiment import learners_of
from metaray.tasks import TASK_KINDS, Binary, Classification, Regression, TaskKind
from metaray.tasks.ranking import average_precision
from metaray.tasks.score import SCORES, Score

CLASS_ALONE = {"protonet", "proto_maml", "matchingnet", "relationnet", "metaoptnet_svm", "baselinepp"}
KINDS: list[TaskKind] = [Classification(), Binary(), Regression(target_size=2)]


def sampled(kind: TaskKind, count: int = 12) -> tuple[Tensor, Tensor]:
    """Predictions and targets, with three ways where there are any."""
    generator = torch.Generator().manual_seed(0)
    output = torch.randn(count, kind.outputs(3), generator=generator, dtype=torch.float64)
    if kind.has_classes:
        return output, torch.arange(count) % kind.labels(3)
    return output, torch.randn(count, kind.outputs(3), generator=generator, dtype=torch.float64)


def area(margin: list[float], labels: list[int]) -> float:
    """The share of pairs in which the positive has more, ties by half: by definition."""
    won = [
        (a > b) + (a == b) / 2
        for a, i in zip(margin, labels, strict=True)
        for b, j in zip(margin, labels, strict=True)
        if i == 1 and j == 0
    ]
    return sum(won) / len(won)


def test_losses() -> None:
    for kind in KINDS:
        output, y = sampled(kind)
        plain: Any = functional.cross_entropy if kind.has_classes else functional.mse_loss
        assert torch.equal(kind.loss(output, y), plain(output, y))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_weights_count_examples(kind: TaskKind) -> None:
    output, y = sampled(kind)
    torch.testing.assert_close(kind.loss(output, y, torch.full((12,), 3.0).double()), kind.loss(output, y))
    weights = torch.arange(12) % 3
    repeated = torch.arange(12).repeat_interleave(weights)
    torch.testing.assert_close(kind.loss(output, y, weights.double()), kind.loss(output[repeated], y[repeated]))


def test_area_under_the_curve() -> None:
    generator = torch.Generator().manual_seed(1)
    for _ in range(20):
        margin = torch.randint(-3, 4, (15,), generator=generator).double()  # with ties
        y = torch.cat([torch.tensor([0, 1]), torch.randint(0, 2, (13,), generator=generator)])
        output = torch.stack([-margin / 2, margin / 2], dim=1)
        assert float(Binary().judged(output, y)) == pytest.approx(area(margin.tolist(), y.tolist()))
    several, targets = torch.randn(4, 15, 2, generator=generator), torch.arange(15).expand(4, 15) % 2
    mapped = torch.vmap(Binary().judged)(several, targets)
    torch.testing.assert_close(
        mapped, torch.stack([Binary().judged(*one) for one in zip(several, targets, strict=True)])
    )


def precision(margin: list[float], labels: list[int]) -> float:
    """The mean, over positives, of the share of positives among those that are ranked no lower: by definition."""
    pairs = list(zip(margin, labels, strict=True))
    shares = [
        sum(label for other, label in pairs if other >= one) / sum(other >= one for other in margin)
        for one, label in pairs
        if label == 1
    ]
    return sum(shares) / len(shares)


def test_average_precision_and_balanced_accuracy() -> None:
    generator = torch.Generator().manual_seed(2)
    assert [score.name for score in Binary().further] == ["average_precision", "balanced_accuracy"]
    for _ in range(20):
        margin = torch.randint(-3, 4, (15,), generator=generator).double()  # with ties
        y = torch.cat([torch.tensor([0, 1]), torch.randint(0, 2, (13,), generator=generator)])
        found = Binary().judged_further(torch.stack([-margin / 2, margin / 2], dim=1), y)
        right = (margin > 0) == (y == 1)
        expected = (
            precision(margin.tolist(), y.tolist()),
            (right[y == 0].double().mean() + right[y == 1].double().mean()) / 2,
        )
        assert [float(one) for one in found] == pytest.approx([float(one) for one in expected], rel=1e-6)
        order = torch.randperm(15, generator=generator)
        assert float(average_precision(margin[order], y[order])) == pytest.approx(float(found[0]), rel=1e-12)
    several, targets = torch.randn(4, 15, 2, generator=generator), torch.arange(15).expand(4, 15) % 2
    mapped = torch.stack(torch.vmap(Binary().judged_further)(several, targets), dim=1)
    alone = [torch.stack(Binary().judged_further(*one)) for one in zip(several, targets, strict=True)]
    torch.testing.assert_close(mapped, torch.stack(alone))
    margin = torch.tensor([3.0, 2.0, 2.0, 1.0])
    assert float(average_precision(margin, torch.tensor([0, 1, 0, 1]))) == pytest.approx((1 / 3 + 2 / 4) / 2)
    assert average_precision(margin.index_fill(0, torch.tensor(1), torch.nan), torch.tensor([0, 1, 0, 1])).isnan()


def test_errors_beside_one_another_have_the_values_own_units() -> None:
    kind, (output, y) = Regression(target_size=2, std=3.0), sampled(Regression(target_size=2))
    assert [score.name for score in kind.further] == ["mae"]
    (found,) = kind.judged_further(output, y)
    torch.testing.assert_close(found, 3 * (output - y).abs().mean())


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_further_scores_are_known_and_another_than_the_one_that_decides(kind: TaskKind) -> None:
    found = kind.judged_further(*sampled(kind))
    assert len(found) == len(kind.further) and all(one.ndim == 0 for one in found)
    assert all(SCORES[score.name] == score != kind.score for score in kind.further)


def test_a_score_does_not_know_the_share_of_positives() -> None:
    output, y = sampled(Binary())
    many = torch.cat([torch.arange(12), torch.arange(12)[y == 0].repeat(5)])
    torch.testing.assert_close(Binary().judged(output[many], y[many]), Binary().judged(output, y))


def test_one_sided_tasks_are_refused() -> None:
    Binary().check_task(np.array([0, 1]), np.array([1, 0, 1]))
    with pytest.raises(
        InputError, match=r"the query of a binary task holds the labels \[1\]; it needs negatives \(0\)"
    ):
        Binary().check_task(np.array([0, 1]), np.array([1, 1]))
    with pytest.raises(InputError, match=r"the support of a binary task holds the labels \[0, 1, 2\]"):
        Binary().check_task(np.array([0, 1, 2]), np.array([1, 0]))


def test_targets_of_another_form_are_refused() -> None:
    with pytest.raises(InputError, match=r"query labels of a binary task are float64 of shape \[2\]; it"):
        Binary().check_task(np.array([0, 1]), np.array([0.0, 1.0]))
    fine = np.zeros((3, 1), dtype=np.float32)
    Regression().check_task(fine, fine)
    for bad in (fine[:, 0], np.zeros((3, 2), dtype=np.float32), np.zeros((3, 1), dtype=np.int64)):
        with pytest.raises(InputError, match=r"query targets of a regression task are .* it needs .* \[n, 1\]"):
            Regression().check_task(fine, bad)


@pytest.mark.parametrize(
    ("y", "classes"),
    [
        ([1, 0, 1], (0, 1)),
        (np.array([True, False]), (False, True)),
        (["inactive", "x"], None),
        (["Positive", "negative"], ("negative", "Positive")),
        (["0", "1"], ("0", "1")),
        ([1.0, 0.0], (0.0, 1.0)),
        (["1.0", "0.0"], ("0.0", "1.0")),
    ],
)
def test_labels_of_binary_tasks(y: Any, classes: tuple[Any, ...] | None) -> None:
    if classes is None:
        with pytest.raises(InputError, match="label 0 is 'inactive'; give 0 for a negative and 1 for a positive"):
            Binary().read(y)
        return
    found = Binary().read(y)
    assert found.classes == classes
    assert [found.classes[place] for place in found.y.tolist()] == list(y)
    Binary().check_classes(found.classes, None, False)


def test_a_support_of_one_class_is_refused() -> None:
    for y, only in (([1, 1], "positives"), ([0], "negatives")):
        with pytest.raises(
            InputError, match=f"the support set holds {only} only; a binary task needs examples of both"
        ):
            Binary().read(y)


def test_predictions() -> None:
    output = torch.tensor([[0.0, 1.0], [2.0, 1.0]])
    assert Classification().predictions(output, ("a", "b"), False) == ["b", "a"]
    assert Binary().predictions(output, (0, 1), False) == [1, 0]
    assert Binary().prediction_cells(output, ("no", "yes"))["label"] == ["yes", "no"]
    values = Regression(target_size=2).predictions(output, (), False)
    assert isinstance(values, np.ndarray) and values.tolist() == output.tolist()
    assert Regression().values(output[:, :1], True).tolist() == [0.0, 2.0]
    with pytest.raises(InputError, match="predicts values"):
        Regression().probabilities(output)
    with pytest.raises(InputError, match="tells classes apart"):
        Binary().values(output, False)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_every_algorithm_takes_a_kind_or_refuses_it_by_name(kind: TaskKind) -> None:
    able = set(learners_of(kind))
    refused = {"classification": set(), "binary": {"baselinepp"}, "regression": CLASS_ALONE}[kind.kind]
    assert able == ALGORITHMS.keys() - refused
    for name in refused:
        with pytest.raises(InputError, match=f"algorithm {name} .* {kind.kind} tasks"):
            ALGORITHMS[name]().check_task(kind)


def test_kinds_by_name() -> None:
    assert {name: cls.kind for name, cls in TASK_KINDS.items()} == {name: name for name in TASK_KINDS}


def test_a_kind_takes_a_known_score() -> None:
    with pytest.raises(TypeError, match="take one of metaray.tasks.score.SCORES"):

        class Hits(Classification):
            score = Score("hits", True)


@pytest.mark.parametrize(("judged_by", "power"), [("mse", 2), ("rmse", 2), ("mae", 1)])
def test_values_are_judged_as_asked_in_their_own_units(judged_by: Any, power: int) -> None:
    kind = Regression(mean=3.0, std=2.0, judged_by=judged_by)
    output, y = sampled(kind)
    expected = (2 * (output - y)).abs().pow(power).mean()
    torch.testing.assert_close(kind.judged(output, y), expected.sqrt() if judged_by == "rmse" else expected)
    assert (kind.score.name, kind.score.higher_is_better) == (judged_by, False)
    assert torch.equal(kind.loss(output, y), functional.mse_loss(output, y))
    mapped = torch.vmap(kind.judged)(output[None], y[None])
    torch.testing.assert_close(mapped[0], kind.judged(output, y))


def test_values_are_trained_as_asked() -> None:
    kind = Regression(trained_by="mae")
    output, y = sampled(kind)
    assert torch.equal(kind.loss(output, y), functional.l1_loss(output, y)) and kind.score.name == "mse"
    weights = torch.arange(12) % 3
    repeated = torch.arange(12).repeat_interleave(weights)
    torch.testing.assert_close(kind.loss(output, y, weights.double()), kind.loss(output[repeated], y[repeated]))


def test_how_tasks_are_judged_does_not_make_others_of_them() -> None:
    kind = Regression(std=2.0)
    assert kind.is_alike(replace(kind, judged_by="mae", trained_by="mae")) and kind.is_alike(kind)
    assert not kind.is_alike(Regression(std=3.0)) and not kind.is_alike(Binary()) and not Binary().is_alike(kind)
    assert Regression(judged_by="mae").model_dump(mode="json") == {"target_size": 1, "judged_by": "mae"}


def test_a_score_that_results_do_not_hold_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Odd.score is .*'odd'.*take one of metaray.tasks.score.SCORES"):

        class Odd(Classification):
            score = Score("odd", True)

    class Late(Regression):
        @property
        def score(self) -> Score:
            return Score("late", True)

    with pytest.raises(TypeError, match=r"Late.score is .*'late'"):
        Late()


def test_guesses_of_means() -> None:
    kind = Regression(mean=3.0, std=2.0, target_size=2)
    assert kind.guesses(torch.tensor([3.0, 5.0])).tolist() == [[0, 0], [1, 1]]
    found = Binary().guesses(torch.tensor([0.25, 0.0, 1.0]))
    assert found.isfinite().all() and float(found[0].softmax(0)[1]) == pytest.approx(0.25)
    with pytest.raises(InputError, match="targets of classification tasks have no mean"):
        Classification().guesses(torch.zeros(1))
