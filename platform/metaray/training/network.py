"""How workers on several hosts find one another."""

import os
from dataclasses import dataclass
from typing import Any

import psutil
import ray
from ray.train.torch import TorchConfig

GLOO = "GLOO_SOCKET_IFNAME"


@dataclass
class MeetingTorchConfig(TorchConfig):  # type: ignore[misc]  # Ray has no types
    """Ray Train's own, but that gloo's workers meet at the addresses that their nodes have in the cluster.

    By itself gloo listens at the address of the host's name. On many machines that is 127.0.0.1 or 127.0.1.1, where no
    other host gets to.

    Attributes:
        board: actor that is told why workers could not meet; Ray Train itself tries again without a word.
    """

    board: Any = None

    @property
    def backend_cls(self) -> type[Any]:
        """That of Ray Train, with the interface chosen first."""
        return _MeetingBackend


_RayBackend: type[Any] = TorchConfig().backend_cls


class _MeetingBackend(_RayBackend):  # type: ignore[misc]
    def on_start(self, worker_group: Any, backend_config: MeetingTorchConfig) -> None:
        if len(set(worker_group.execute(ray.util.get_node_ip_address))) > 1:
            worker_group.execute(choose_interface)
        try:
            super().on_start(worker_group, backend_config)
        except Exception as error:
            why = str(getattr(error, "cause", error)).strip().splitlines() or [type(error).__name__]
            if backend_config.board is not None:
                backend_config.board.apart.remote(f"the workers could not meet: {why[0]}")
            raise


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
