"""Where workers on several hosts meet. That they do is shown by tests/cluster/test_end_to_end.py, on several hosts."""

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import ray
import ray.train
import torch
from torch import distributed
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from metaray.distributed import rendezvous as network
from tests.patience import PATIENT_S


class Group:
    """A worker group whose workers are called one after the other, in this process."""

    def __init__(self, addresses: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._addresses, self._monkeypatch = addresses, monkeypatch

    def execute(self, call: Callable[[], Any]) -> list[Any]:
        found = []
        for address in self._addresses:
            self._monkeypatch.setattr(ray.util, "get_node_ip_address", lambda address=address: address)
            found.append(call())
        return found


def test_each_address_of_this_machine_has_its_interface() -> None:
    for name, has in psutil.net_if_addrs().items():
        for each in has:
            if each.address.startswith("fe80"):
                continue  # several interfaces may have it
            if each.family.name in ("AF_INET", "AF_INET6"):
                assert network.interface_of(each.address.partition("%")[0]) == name
    assert network.interface_of("203.0.113.9") is None


@pytest.mark.parametrize(
    ("addresses", "set_by_user", "chosen"),
    [
        (["127.0.0.1", "203.0.113.9"], None, network.interface_of("127.0.0.1")),
        (["203.0.113.8", "203.0.113.9"], None, None),  # behind translated addresses: as torch would have it
        (["127.0.0.1", "203.0.113.9"], "eth7", "eth7"),
        (["127.0.0.1", "127.0.0.1"], None, network.interface_of("127.0.0.1")),  # of a cluster that nobody else gets to
        (["203.0.113.8", "203.0.113.8"], None, None),  # one host: nothing to choose
    ],
)
def test_workers_meet_where_nodes_do(
    addresses: list[str], set_by_user: str | None, chosen: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(network.GLOO, set_by_user or "")
    if set_by_user is None:
        monkeypatch.delenv(network.GLOO)
    started: list[str | None] = []
    monkeypatch.setattr(network, "_meet", lambda *_: started.append(os.environ.get(network.GLOO)))
    config = network.MeetingConfig()
    config.backend_cls().on_start(Group(addresses, monkeypatch), config)
    assert started == [chosen]


@pytest.fixture
def no_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "_kept", [])


@pytest.mark.usefixtures("no_store")
def test_workers_meet_at_one_address_and_not_at_all_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "127.0.0.1")
    address, port = network.open_store()
    listening = [each.laddr for each in psutil.Process().net_connections("inet") if each.status == "LISTEN"]
    assert [each.ip for each in listening if each.port == port] == [address] == ["127.0.0.1"]
    (store,) = network._kept
    store.set("key", "value")
    assert TCPStore(address, port, is_master=False).get("key") == b"value"


@pytest.mark.usefixtures("no_store")
def test_behind_a_translated_address_the_store_is_open_at_all_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "127.0.0.1")
    monkeypatch.setattr(network, "interface_of", lambda address: None)
    _, port = network.open_store()
    listening = [each.laddr for each in psutil.Process().net_connections("inet") if each.status == "LISTEN"]
    assert [each.ip for each in listening if each.port == port] == ["0.0.0.0"]


def rank_of_two(rank: int, meeting: Any, told: Any) -> None:
    """A worker, in a process of its own."""
    here = SimpleNamespace(
        get_world_rank=lambda: rank,
        get_world_size=lambda: 2,
        get_local_rank=lambda: rank,
        get_local_world_size=lambda: 2,
        get_node_rank=lambda: 0,
    )
    ray.train.get_context = lambda: here
    ray.util.get_node_ip_address = lambda: "127.0.0.1"
    if rank == 0:
        meeting.put(network.open_store())
    place = meeting.get()
    meeting.put(place)
    network.join("gloo", place, 60)
    total = torch.tensor([float(rank + 1)])
    distributed.all_reduce(total)
    told.put((os.environ["RANK"], os.environ["WORLD_SIZE"], float(total)))
    network.leave(alone=False)
    assert not distributed.is_initialized()


@pytest.mark.slow
def test_two_workers_join_and_leave() -> None:
    """Slow: two fresh processes that import torch and Ray. Workers of Ray Train do it in every run of two."""
    context = multiprocessing.get_context("spawn")
    meeting, told = context.Queue(), context.Queue()
    workers = [context.Process(target=rank_of_two, args=(rank, meeting, told)) for rank in range(2)]
    for worker in workers:
        worker.start()
    found = sorted(told.get(timeout=PATIENT_S) for _ in workers)
    for worker in workers:
        worker.join(PATIENT_S)
    assert found == [("0", "2", 3.0), ("1", "2", 3.0)] and [worker.exitcode for worker in workers] == [0, 0]


def test_what_the_controller_needs_imports_no_torch() -> None:
    code = "import sys, metaray.distributed.rendezvous, metaray.distributed.coordinator; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


def test_why_workers_could_not_meet_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("Gloo connectFullMesh failed\nand a trace")

    told: list[str] = []
    coordinator = SimpleNamespace(report_not_joined=SimpleNamespace(remote=told.append))
    config = network.MeetingConfig(coordinator=coordinator)
    monkeypatch.setattr(network, "_meet", fail)
    with pytest.raises(RuntimeError, match="connectFullMesh"):
        config.backend_cls().on_start(Group(["127.0.0.1"], monkeypatch), config)
    assert told == ["the workers could not meet: Gloo connectFullMesh failed"]
