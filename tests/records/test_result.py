"""Results and the digest of parameters."""

import dataclasses
import json
import math
from typing import Any

import pytest
import torch

from metaray.records.estimate import Estimate
from metaray.records.over_groups import GroupEstimate
from metaray.records.result import QUOTED, Result, Rival, parameters_sha256, scores_told

ESTIMATE = Estimate(0.5, 0.1, 10)


def made(before: Estimate | None) -> Result:
    return Result(
        num_steps=3,
        best_step=2,
        meta_val=ESTIMATE,
        meta_val_scores=(0.25, 1 / 3),
        meta_test=ESTIMATE,
        before_adaptation=before,
        before_training=ESTIMATE,
        parameters_sha256="ab",
        protocol="5-way",
        seconds=1.5,
        wait_share=0.01,
        episodes_per_s=100.0,
    )


@pytest.fixture
def result() -> Result:
    return made(None)


@pytest.mark.parametrize("before", [None, ESTIMATE])
def test_round_trip(before: Estimate | None) -> None:
    result = made(before)
    assert Result.from_json(result.to_json()) == result
    assert result.quality == "accuracy"
    squared = dataclasses.replace(result, quality="mse")
    assert Result.from_json(squared.to_json()) == squared != result
    over = GroupEstimate(0.4, 0.2, 3)
    rivals = {
        "nearest_neighbor": Rival(ESTIMATE, ESTIMATE, over, {"mae": ESTIMATE}, (0.5, 0.25)),
        "logistic": Rival(ESTIMATE, ESTIMATE),
    }
    fields: dict[str, Any] = {"baselines": rivals, "further": {"mae": ESTIMATE}, "over_groups": {"mae": over}}
    full = dataclasses.replace(result, **fields)
    for text in (full.to_json(), full.file()):
        read = Result.from_json(text)
        assert read == full != result
        assert list(read.baselines) == ["nearest_neighbor", "logistic"], "files sort keys"
    assert json.loads(full.to_json())["nearest_neighbor"] == ESTIMATE._asdict(), "where it always was"


def test_results_of_before(result: Result) -> None:
    """Before there were regression, baselines by name, further scores and groups."""
    old = json.loads(result.to_json())
    for key in ("quality", "compared", "device", "baselines", "further", "over_groups"):
        del old[key]
    assert Result.from_json(json.dumps(old)) == result
    old["nearest_neighbor"] = ESTIMATE._asdict()
    found = Result.from_json(json.dumps(old))
    assert found.baselines == {"nearest_neighbor": Rival(ESTIMATE)} and found.nearest_neighbor == ESTIMATE
    assert found.rivals == [("nearest neighbour on pixels", str(ESTIMATE))]
    old["baseline_val_scores"], old["quality"] = [0.5, 0.25], "mse"
    old["baselines"] = {"ridge": {"score": ESTIMATE._asdict(), "gain": ESTIMATE._asdict()}}
    found = Result.from_json(json.dumps(old))
    assert found.compared == "inputs" and found.baselines["nearest_neighbor"].val_scores == (0.5, 0.25)
    assert list(found.baselines) == ["nearest_neighbor", "ridge"] and found.baselines["ridge"].gain == ESTIMATE


def test_a_rival_says_who_is_better_by_episode_and_by_group() -> None:
    gain = Estimate(-0.25, 0.125, 10)
    told = "0.5000 +- 0.1000 (10 episodes); the learner is worse by 0.2500 +- 0.1250, episode by episode"
    assert str(Rival(ESTIMATE, gain)) == told == str(Rival(ESTIMATE, gain, GroupEstimate(0.5, math.nan, 1)))
    assert (
        str(Rival(ESTIMATE, gain, GroupEstimate(0.5, 2.0, 3)))
        == f"{told}, and better by 0.5000 +- 2.0000 over 3 groups"
    )


def test_metrics_have_a_key_each() -> None:
    over, rival = GroupEstimate(0.4, 0.2, 3), Rival(ESTIMATE, further={"average_precision": ESTIMATE})
    fields: dict[str, Any] = {"baselines": {"logistic": rival}, "further": {"average_precision": ESTIMATE}}
    found = dataclasses.replace(made(None), quality="auroc", over_groups={"auroc": over}, **fields).metrics
    for key in ("auroc", "auroc_logistic", "average_precision", "average_precision_logistic"):
        assert (found[f"test/{key}"], found[f"test/{key}_half_width"]) == (0.5, 0.1)
    assert (found["test/auroc_over_groups"], found["test/auroc_over_groups_half_width"]) == (0.4, 0.2)


def test_the_digest_covers_names_shapes_types_and_bytes() -> None:
    base = {"a": torch.arange(4.0), "b": torch.zeros(2)}
    digest = parameters_sha256(base)
    assert parameters_sha256({"b": base["b"], "a": base["a"].clone().requires_grad_()}) == digest
    others = [
        {"a": base["a"], "c": base["b"]},
        {**base, "a": base["a"].view(2, 2)},
        {**base, "b": torch.zeros(2, dtype=torch.int32)},
        {**base, "b": torch.tensor([0.0, -0.0])},
        {"a": base["a"]},
    ]
    assert len({parameters_sha256(other) for other in others} | {digest}) == len(others) + 1


def test_the_digest_ignores_strides() -> None:
    x = torch.arange(6.0).view(2, 3)
    assert parameters_sha256({"a": x.T.contiguous().T}) == parameters_sha256({"a": x})


def test_an_interval_is_quoted_where_there_is_one() -> None:
    few, one = GroupEstimate(0.4, 0.2, 3), GroupEstimate(0.4, math.nan, 1)
    assert [
        told.endswith(QUOTED) for _, told in scores_told("meta-test", {"mae": ESTIMATE}, {"mae": few, "mse": few})
    ] == [
        False,
        True,
        False,
    ]
    assert [told for _, told in scores_told("meta-test", {}, {"mse": one})] == [str(one)]
