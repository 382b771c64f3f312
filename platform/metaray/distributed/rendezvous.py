"""How workers on several hosts find one another."""

import os
import socket
from dataclasses import dataclass
from typing import Any

import psutil
import ray
from ray.train.torch import TorchConfig
from ray.train.torch.config import get_address_and_port
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # torch exports it, but not by name

GLOO = "GLOO_SOCKET_IFNAME"
LOOPBACK = "127.0.0.1"


@dataclass
class MeetingTorchConfig(TorchConfig):  # type: ignore[misc]  # Ray has no types
    """Ray Train's own, but that gloo's workers meet at the addresses that their nodes have in the cluster.

    By itself gloo listens at the address of the host's name. On many machines that is 127.0.0.1 or 127.0.1.1, where no
    other host gets to.

    Attributes:
        coordinator: actor that is told why workers could not meet; Ray Train itself tries again without a word.
    """

    coordinator: Any = None

    @property
    def backend_cls(self) -> type[Any]:
        """That of Ray Train, with the interface chosen first."""
        return _MeetingBackend


_RayBackend: type[Any] = TorchConfig().backend_cls


class _MeetingBackend(_RayBackend):  # type: ignore[misc]
    def on_start(self, worker_group: Any, backend_config: MeetingTorchConfig) -> None:
        addresses = set(worker_group.execute(ray.util.get_node_ip_address))
        if len(addresses) > 1 or addresses == {LOOPBACK}:
            worker_group.execute(choose_interface)
        try:
            super().on_start(_Hosted(worker_group), backend_config)
        except Exception as error:
            why = str(getattr(error, "cause", error)).strip().splitlines() or [type(error).__name__]
            if backend_config.coordinator is not None:
                backend_config.coordinator.report_not_joined.remote(f"the workers could not meet: {why[0]}")
            raise


class _Hosted:
    """A worker group whose rank 0 opens the store where the ranks meet, before Ray has all of them go there.

    By itself torch opens it at every address of the host, for everybody.
    """

    def __init__(self, worker_group: Any) -> None:
        self._group = worker_group

    def __getattr__(self, name: str) -> Any:
        return getattr(self._group, name)

    def __len__(self) -> int:
        return len(self._group)

    def execute_single(self, rank: int, function: Any, *args: Any, **kwargs: Any) -> Any:
        if function is not get_address_and_port:
            return self._group.execute_single(rank, function, *args, **kwargs)
        if (opened := self._group.execute_single(rank, open_store)) is None:
            return self._group.execute_single(rank, function, *args, **kwargs)
        self._group.execute(_only_visit)
        return opened


def _only_visit() -> None:
    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "True"


def open_store() -> tuple[str, int] | None:
    """Open the store, at this node's address in the cluster and no other; returns the address and its port.

    None where no interface has the address, as behind a translated one.
    """
    address = str(ray.util.get_node_ip_address())
    if interface_of(address) is None:
        return None
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.create_server((address, 0), family=family)
    port = int(listener.getsockname()[1])
    _kept.append(TCPStore(address, port, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach()))
    return address, port


_kept: list[TCPStore] = []
"""Stores are open as long as this process."""


def choose_interface() -> None:
    """Tell gloo, in this process, the interface of this node's address in the cluster; what the user set stays."""
    name = interface_of(ray.util.get_node_ip_address())
    if name is not None:
        os.environ.setdefault(GLOO, name)


def interface_of(address: str) -> str | None:
    """The network interface that has an IP address; None if there is none, as behind a translated address."""
    for name, has in sorted(psutil.net_if_addrs().items()):
        if any(each.address.partition("%")[0] == address for each in has):
            return str(name)
    return None
