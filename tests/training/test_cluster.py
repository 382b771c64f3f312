"""Joining a cluster: what is found out before a run starts."""

import os
import socket
from collections.abc import Iterator

import pytest

from metaray.errors import InputError
from metaray.training import cluster
from metaray.training.cluster import connect, uses_gpu
from metaray.training.placement import Placement, Workers


@pytest.fixture
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is started, whatever the test does."""
    monkeypatch.setattr("ray.is_initialized", lambda: False)

    def refuse(**options: object) -> None:
        raise AssertionError(f"ray.init({options})")

    monkeypatch.setattr("ray.init", refuse)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    yield


@pytest.mark.usefixtures("no_cluster")
@pytest.mark.parametrize("address", ["head", "head:", "head:port", "ray://head"])
def test_addresses_of_the_wrong_form(address: str) -> None:
    with pytest.raises(InputError, match=f"cluster address '{address}' is not of the form HOST:PORT"):
        connect(Placement(workers=Workers(1, 1), address=address))


@pytest.mark.usefixtures("no_cluster")
@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_nobody_answers(scheme: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"{scheme}127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(InputError, match=f"no Ray cluster answers at '{address}': .*Is it running"):
            connect(Placement(workers=Workers(1, 1), address=address))
    with pytest.raises(InputError, match="no Ray cluster answers at '127.0.0.1:99999'"):
        connect(Placement(workers=Workers(1, 1), address="127.0.0.1:99999"))


@pytest.mark.usefixtures("no_cluster")
def test_the_address_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "nowhere")
    with pytest.raises(InputError, match="cluster address 'nowhere' is not of the form"):
        connect(Placement(workers=Workers(1, 1)))


@pytest.fixture
def eight_cpus(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """The resources of a cluster that is joined already."""
    resources = {"CPU": 8.0}
    monkeypatch.setattr("ray.is_initialized", lambda: True)
    monkeypatch.setattr("ray.cluster_resources", lambda: resources)
    return resources


def test_elastic_workers_need_room_for_the_fewest(eight_cpus: dict[str, float]) -> None:
    connect(Placement(workers=Workers(8, 8)))
    connect(Placement(workers=Workers(1, 100)))
    connect(Placement(workers=Workers(16, 16), cpus_per_worker=0.5))
    with pytest.raises(InputError, match="9 workers x 1 CPUs = 9 CPUs, but the cluster has 8; lower --workers"):
        connect(Placement(workers=Workers(9, 100)))
    with pytest.raises(InputError, match=r"3 workers x 2\.75 CPUs = 8\.25 CPUs, but the cluster has 8"):
        connect(Placement(workers=Workers(3, 3), cpus_per_worker=2.75))


def test_gpus_are_used_where_there_are_enough(eight_cpus: dict[str, float]) -> None:
    def of(workers: Workers) -> list[bool]:
        return [uses_gpu(Placement(workers=workers, device=device)) for device in ("auto", "cpu", "cuda")]

    assert of(Workers(1, 1)) == [False, False, True]
    eight_cpus["GPU"] = 2.0
    assert of(Workers(1, 1)) == of(Workers(2, 2)) == of(Workers(1, 8)) == [True, False, True]
    assert of(Workers(3, 3)) == [False, False, True]
    with pytest.raises(InputError, match="3 workers need a GPU each; the cluster has 2; use fewer --workers"):
        connect(Placement(workers=Workers(3, 3), device="cuda"))
    connect(Placement(workers=Workers(3, 3)))


def test_what_it_sets_can_be_set_otherwise(eight_cpus: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in cluster.QUICK_TRAIN:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "7")
    connect(Placement(workers=Workers(1, 1)))
    assert os.environ["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] == "7"
    assert os.environ["RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"] == "0"


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_a_running_cluster_is_joined() -> None:
    with pytest.raises(InputError, match=r"9 workers x 1 CPUs = 9 CPUs, but the cluster has 4; lower --workers"):
        connect(Placement(workers=Workers(9, 9)))
    with pytest.raises(InputError, match="3 workers need a GPU each; the cluster has 0"):
        connect(Placement(workers=Workers(3, 3), device="cuda"))
    connect(Placement(workers=Workers(8, 8), cpus_per_worker=0.5))
    assert os.environ["RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"] == "0"
