"""Joining a cluster: what is found out before a run starts."""

import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener

import psutil
import pytest
import ray
from ray._private import ray_constants
from ray._private import utils as ray_utils

from metaray.distributed import cluster
from metaray.distributed.cluster import closed_cluster, connect, entrypoint_without_secrets, uses_gpu
from metaray.errors import InputError
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


def options_of(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, object], dict[str, str]]:
    """Of `ray.init` for a local cluster, and the environment that its processes get."""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", cluster.KEEP_LOOPBACK):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with closed_cluster() as options:
        return options, {name: value for name, value in os.environ.items() if name.startswith("RAY_")}


def test_a_local_cluster_is_on_loopback_and_asks_for_a_token_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    options, first = options_of({}, monkeypatch)
    assert options == {"address": "local", "_node_ip_address": "127.0.0.1", "dashboard_host": "127.0.0.1"}
    assert "RAY_AUTH_MODE" not in first and len(first["RAY_AUTH_TOKEN"]) == 64  # Ray asks, unless told not to
    assert first[cluster.KEEP_LOOPBACK] == "0" and cluster.KEEP_LOOPBACK not in os.environ
    assert ray_constants.ENABLE_RAY_CLUSTER, "as it was"
    assert options_of({}, monkeypatch)[1]["RAY_AUTH_TOKEN"] != first["RAY_AUTH_TOKEN"]


@pytest.mark.parametrize("given", [{"RAY_AUTH_TOKEN": "mine"}, {"RAY_AUTH_TOKEN_PATH": "/mine"}])
def test_a_token_of_the_users_own_stays(given: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    environment = options_of(given | {"RAY_AUTH_MODE": "disabled"}, monkeypatch)[1]
    assert {name: value for name, value in environment.items() if "AUTH_TOKEN" in name} == given
    assert environment["RAY_AUTH_MODE"] == "disabled"


def test_ray_is_not_told_the_secrets_of_our_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_utils, "get_entrypoint_name", lambda: "metaray train --tracking-uri https://me:hush@host")
    for within in (closed_cluster(), entrypoint_without_secrets()):
        with within:
            assert ray_utils.get_entrypoint_name() == "metaray train --tracking-uri https://me:***@host"
    assert "hush" in ray_utils.get_entrypoint_name()


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_every_port_of_a_local_cluster_is_on_loopback_and_its_dashboard_asks_who_is_there() -> None:
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    named = [process for process in processes if process.name() in ("gcs_server", "raylet")]
    places = set()
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            places |= {each.laddr.ip for each in process.net_connections("inet") if each.status == "LISTEN"}
    assert len(named) == 2 and {place.removeprefix("::ffff:") for place in places} == {"127.0.0.1"}
    dashboard = ray._private.worker.global_worker.node.address_info["webui_url"]  # there is no public way to ask
    with pytest.raises(HTTPError, match="401") as refused:
        build_opener(ProxyHandler({})).open(f"http://{dashboard}/api/jobs/", timeout=60)
    refused.value.close()


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
