"""How a run spreads over a cluster."""

import pytest

from metaray.errors import InputError
from metaray.training.placement import ClusterNode, Placement, Workers, sampler_nodes


def test_the_default_uses_no_ray() -> None:
    assert Placement().workers == Workers(0, 0) and Placement().in_process and Placement().address is None
    assert not Placement(workers=Workers(1, 1)).in_process


def test_what_does_not_fit_together() -> None:
    with pytest.raises(InputError, match="unknown device 'gpu'"):
        Placement(device="gpu")
    with pytest.raises(InputError, match="needs at least 1 worker"):
        Placement(address="auto")
    assert Placement(workers=Workers(1, 2), address="auto").address == "auto"


@pytest.mark.parametrize(
    ("text", "expected", "words"),
    [
        ("0", Workers(0, 0), "0"),
        ("2", Workers(2, 2), "2"),
        ("3:3", Workers(3, 3), "3"),
        ("1:4", Workers(1, 4), "1 to 4"),
        ("0:0", Workers(0, 0), "0"),
        ("007", Workers(7, 7), "7"),
        ("999999", Workers(999999, 999999), "999999"),
    ],
)
def test_workers(text: str, expected: Workers, words: str) -> None:
    assert Workers.parse(text) == expected and str(expected) == words


@pytest.mark.parametrize("text", ["", "two", "-1", "1.5", "1:", ":4", "1:2:3", "1-4", " 2", "2\n", "1: 4", "1000000"])
def test_what_is_no_number_of_workers(text: str) -> None:
    with pytest.raises(InputError, match="give a number such as 2, or FEWEST:MOST such as 1:4"):
        Workers.parse(text)


@pytest.mark.parametrize("text", ["4:1", "0:2"])
def test_fewest_and_most(text: str) -> None:
    with pytest.raises(InputError, match=f"workers '{text}': the fewest must be at least 1 and at most the most"):
        Workers.parse(text)


NODES = [ClusterNode("head", "10.0.0.1", 0), ClusterNode("a", "10.0.0.2", 8), ClusterNode("b", "10.0.0.3", 8, 2)]


@pytest.mark.parametrize(
    ("where", "use_gpu", "found"),
    [
        ("any", True, None),
        ("cpu", True, ["a"]),
        ("cpu", False, ["a"]),
        ("workers", True, ["b"]),
        ("workers", False, ["a", "b"]),
    ],
)
def test_where_samplers_run(where: str, use_gpu: bool, found: list[str] | None) -> None:
    assert sampler_nodes(where, NODES, use_gpu=use_gpu) == found


def test_nowhere_to_run_samplers() -> None:
    with pytest.raises(InputError, match="none of 1 nodes is one without a GPU that has CPUs; use --samplers-on any"):
        sampler_nodes("cpu", NODES[2:], use_gpu=False)
    with pytest.raises(InputError, match="unknown place of samplers 'gpu'.* Known: any, cpu, workers"):
        Placement(samplers_on="gpu")
