"""How many trials fit into a cluster at once."""

import re

import pytest

from metaray.errors import InputError
from metaray.training.placement import ClusterNode
from metaray.tuning.capacity import Shares, capacity_of


def node(cpus: float, gpus: float = 0.0) -> ClusterNode:
    return ClusterNode("id", "10.0.0.1", cpus, gpus)


FOUR = [node(4)]


@pytest.mark.parametrize(
    ("shares", "nodes", "trials", "at_once"),
    [
        (Shares(workers=2), FOUR, 2, 2),
        (Shares(workers=2), FOUR, 10, 2),
        (Shares(workers=1), FOUR, 10, 4),
        (Shares(), FOUR, 10, 4),
        (Shares(), FOUR, 3, 3),
        (Shares(concurrent=2), FOUR, 10, 2),
        (Shares(concurrent=4), FOUR, 3, 3),
        (Shares(workers=3, concurrent=1), FOUR, 10, 1),
        (Shares(workers=3), FOUR, 1, 1),
        (Shares(workers=4), [node(1)] * 8, 10, 2),
        (Shares(workers=3), [node(2)] * 3, 10, 2),  # the workers of a trial may be on several nodes
        # A process is on one node: two nodes of 3 CPUs hold two of 2 CPUs, not three.
        (Shares(cpus=2), [node(3), node(3)], 10, 2),
        (Shares(workers=2, cpus=2, concurrent=1), [node(3), node(3)], 10, 1),
        # Sums of fractions are not quite whole.
        (Shares(cpus=0.1), [node(1)], 20, 10),
        (Shares(cpus=0.1), [node(0.3)], 20, 3),
        (Shares(cpus=0.7), [node(2.1)], 20, 3),
        (Shares(cpus=0.3), [node(1)], 20, 3),
        (Shares(gpus=0.25), [node(16, 1)], 20, 4),
        (Shares(gpus=0.1), [node(16, 1)], 20, 10),
        (Shares(gpus=0.25), [node(3, 1)], 20, 3),
        (Shares(gpus=1), [node(8, 2), node(8)], 20, 2),
        (Shares(gpus=2), [node(8, 3), node(8, 3)], 20, 2),
        (Shares(workers=2, gpus=1), [node(8, 2), node(8, 3)], 20, 2),
    ],
)
def test_what_fits(shares: Shares, nodes: list[ClusterNode], trials: int, at_once: int) -> None:
    found = capacity_of(shares, nodes, trials)
    assert found.at_once == at_once
    assert f": {at_once} at once, in at most {-(-trials // at_once)} round" in found.text
    assert found.text.startswith(f"{trials} trials of ")


def test_a_fraction_is_of_one_gpu() -> None:
    assert capacity_of(Shares(gpus=0.6), [node(8, 2)], 10).at_once == 2


def test_the_arithmetic_is_shown() -> None:
    text = "4 trials of 2 workers x 1 CPUs, 2 samplers each; the cluster has 4 CPUs: 2 at once, in at most 2 rounds"
    assert capacity_of(Shares(workers=2), FOUR, 4).text == text
    assert capacity_of(Shares(), FOUR, 4).text.endswith("4 at once, in at most 1 round")
    text = "5 trials of 0.5 CPUs and 0.25 GPUs; the cluster has 3 CPUs and 1 GPUs: 4 at once, in at most 2 rounds"
    assert capacity_of(Shares(cpus=0.5, gpus=0.25), [node(2, 1), node(1)], 5).text == text


@pytest.mark.parametrize(
    ("shares", "nodes", "trials", "message"),
    [
        (
            Shares(workers=3),
            FOUR,
            2,
            "2 trials x 3 workers x 1 CPUs = 6 CPUs, but the cluster has 4 CPUs: only one fits at a time; "
            "lower --workers-per-trial, or say --concurrent 1 ",
        ),
        (
            Shares(workers=3, concurrent=2),
            FOUR,
            2,
            "2 trials at once x 3 workers x 1 CPUs = 6 CPUs, but the cluster has 4 CPUs: 1 fit; "
            "lower --concurrent to 1, or --workers-per-trial",
        ),
        (
            Shares(concurrent=5),
            FOUR,
            9,
            "5 trials at once x 1 CPUs = 5 CPUs, but the cluster has 4 CPUs: 4 fit; lower --concurrent to 4",
        ),
        (
            Shares(workers=2, cpus=2, concurrent=2),
            [node(3), node(3)],
            9,
            "2 trials at once x 2 workers x 2 CPUs = 8 CPUs, but the cluster has 6 CPUs: 1 fit; lower --concurrent",
        ),
        (
            Shares(gpus=0.5, concurrent=3),
            [node(8, 1)],
            9,
            "3 trials at once x 1 CPUs and 0.5 GPUs = 3 CPUs and 1.5 GPUs, but the cluster has 8 CPUs and 1 GPUs: "
            "2 fit; lower --concurrent to 2",
        ),
        (
            Shares(workers=5),
            FOUR,
            1,
            "a trial takes 5 workers x 1 CPUs, but the cluster has 4 CPUs, which is too little for one; "
            "lower --workers-per-trial or --cpus-per-worker",
        ),
        (Shares(cpus=4.5), FOUR, 1, "a trial takes 4.5 CPUs, but .* too little for one; lower --cpus-per-worker$"),
        (Shares(cpus=2), [node(1), node(1)], 1, "a trial takes 2 CPUs, but the cluster has 2 CPUs, which is too"),
        (
            Shares(gpus=1),
            FOUR,
            1,
            "a trial takes 1 CPUs and 1 GPUs, but the cluster has 4 CPUs and 0 GPUs, which is too little for one; "
            "lower --cpus-per-worker, --gpus-per-trial or --device cpu",
        ),
        (Shares(), [], 1, "the cluster has 0 CPUs"),
    ],
)
def test_what_does_not_fit(shares: Shares, nodes: list[ClusterNode], trials: int, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        capacity_of(shares, nodes, trials)
    assert not re.search("--concurrent to 0", str(caught.value))
