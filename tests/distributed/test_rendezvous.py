"""Where workers on several hosts meet. That they do is shown by tests/cluster/test_end_to_end.py, on several hosts."""

import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import ray
from ray.train.torch import TorchConfig
from ray.train.torch.config import get_address_and_port
from torch.distributed.rendezvous import rendezvous

from metaray.distributed import rendezvous as network


class Group:
    """A worker group whose workers are called one after the other, in this process."""

    def __init__(self, addresses: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._addresses, self._monkeypatch = addresses, monkeypatch

    def execute(self, call: Callable[[], Any]) -> list[Any]:
        found = []
        for address in self._addresses:
            self._monkeypatch.setattr(ray.util, "get_node_ip_address", lambda address=address: address)
            asks = call is not network.choose_interface  # for the address, with what was patched in before
            found.append(address if asks else call())
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
    ray_backend = TorchConfig().backend_cls
    monkeypatch.setattr(ray_backend, "on_start", lambda *_: started.append(os.environ.get(network.GLOO)))
    config = network.MeetingTorchConfig()
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "")
    config.backend_cls().on_start(Group(addresses, monkeypatch), config)
    assert started == [chosen]


class Remote(Group):
    """Of two workers; everything runs in this process."""

    def execute(self, call: Callable[[], Any]) -> list[Any]:
        return [call() for _ in self._addresses]

    def execute_single(self, rank: int, call: Callable[[], Any]) -> Any:
        return call()

    def __len__(self) -> int:
        return len(self._addresses)


@pytest.fixture
def no_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "")
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE")
    monkeypatch.setattr(network, "_kept", [])


@pytest.mark.usefixtures("no_store")
def test_workers_meet_at_one_address_and_not_at_all_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "127.0.0.1")
    group = network._Hosted(Remote(["127.0.0.1"] * 2, monkeypatch))
    assert len(group) == 2
    address, port = group.execute_single(0, get_address_and_port)
    listening = [each.laddr for each in psutil.Process().net_connections("inet") if each.status == "LISTEN"]
    assert [each.ip for each in listening if each.port == port] == [address] == ["127.0.0.1"]
    assert os.environ["TORCHELASTIC_USE_AGENT_STORE"] == "True"
    ranks = [rendezvous(f"tcp://{address}:{port}", rank, 2) for rank in range(2)]
    stores = [next(rank)[0] for rank in ranks]
    stores[0].set("key", "value")
    assert stores[1].get("key") == b"value"


@pytest.mark.usefixtures("no_store")
def test_behind_a_translated_address_workers_meet_as_ray_would_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "203.0.113.9")

    def ask() -> tuple[str, int]:
        return "203.0.113.9", 1

    monkeypatch.setattr(network, "get_address_and_port", ask)
    group = network._Hosted(Remote(["203.0.113.9"], monkeypatch))
    assert group.execute_single(0, ask) == ("203.0.113.9", 1)
    assert group.execute_single(0, lambda: 7) == 7 and "TORCHELASTIC_USE_AGENT_STORE" not in os.environ


def test_why_workers_could_not_meet_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("Gloo connectFullMesh failed\nand a trace")

    told: list[str] = []
    coordinator = SimpleNamespace(report_not_joined=SimpleNamespace(remote=told.append))
    config = network.MeetingTorchConfig(coordinator=coordinator)
    monkeypatch.setattr(TorchConfig().backend_cls, "on_start", fail)
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "")
    with pytest.raises(RuntimeError, match="connectFullMesh"):
        config.backend_cls().on_start(Group(["127.0.0.1"], monkeypatch), config)
    assert told == ["the workers could not meet: Gloo connectFullMesh failed"]
