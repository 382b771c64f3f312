"""Where workers on several hosts meet. That they do is shown by tests/cluster/test_end_to_end.py, on several hosts."""

import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import ray

from metaray.training import network


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
        (["127.0.0.1", "127.0.0.1"], None, None),  # one host: nothing to choose
    ],
)
def test_workers_meet_where_nodes_do(
    addresses: list[str], set_by_user: str | None, chosen: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(network.GLOO, set_by_user or "")
    if set_by_user is None:
        monkeypatch.delenv(network.GLOO)
    started: list[str | None] = []
    ray_backend = network.TorchConfig().backend_cls
    monkeypatch.setattr(ray_backend, "on_start", lambda *_: started.append(os.environ.get(network.GLOO)))
    config = network.MeetingTorchConfig()
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "")
    config.backend_cls().on_start(Group(addresses, monkeypatch), config)
    assert started == [chosen]


def test_why_workers_could_not_meet_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("Gloo connectFullMesh failed\nand a trace")

    told: list[str] = []
    board = SimpleNamespace(apart=SimpleNamespace(remote=told.append))
    config = network.MeetingTorchConfig(board=board)
    monkeypatch.setattr(network.TorchConfig().backend_cls, "on_start", fail)
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "")
    with pytest.raises(RuntimeError, match="connectFullMesh"):
        config.backend_cls().on_start(Group(["127.0.0.1"], monkeypatch), config)
    assert told == ["the workers could not meet: Gloo connectFullMesh failed"]
