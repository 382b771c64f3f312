"""Results and the digest of parameters."""

import dataclasses
import json

import pytest
import torch

from metaray.records.estimate import Estimate
from metaray.records.result import Result, Rival, parameters_sha256

ESTIMATE = Estimate(0.5, 0.1, 10)


@pytest.mark.parametrize("before", [None, ESTIMATE])
def test_round_trip(before: Estimate | None) -> None:
    result = Result(
        num_steps=3,
        best_step=2,
        meta_val=ESTIMATE,
        meta_val_scores=(0.25, 1 / 3),
        meta_test=ESTIMATE,
        before_adaptation=before,
        before_training=ESTIMATE,
        nearest_neighbor=ESTIMATE,
        parameters_sha256="ab",
        protocol="5-way",
        seconds=1.5,
        wait_share=0.01,
        episodes_per_s=100.0,
    )
    assert Result.from_json(result.to_json()) == result
    assert result.quality == "accuracy"
    squared = dataclasses.replace(result, quality="mse")
    assert Result.from_json(squared.to_json()) == squared != result
    judged = dataclasses.replace(result, baseline_val_scores=(0.5, 0.25))
    assert Result.from_json(judged.to_json()) == judged != result
    rivalled = dataclasses.replace(result, baselines={"ridge": Rival(ESTIMATE, ESTIMATE)})
    assert Result.from_json(rivalled.to_json()) == rivalled != result and "baselines" not in result.to_json()
    old = json.loads(result.to_json())
    del old["quality"], old["baseline_val_scores"], old["compared"], old["device"]
    assert Result.from_json(json.dumps(old)) == result, "what was written before there were regression and baselines"
    old["quality"] = "mse"
    assert Result.from_json(json.dumps(old)).compared == "inputs"


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
