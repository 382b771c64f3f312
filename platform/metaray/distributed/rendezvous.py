"""How workers find one another, on one host or on several.

Ray Train's controller, which has them do so, is a process of its own that starts before they do: nothing that it needs
imports torch. Each function that workers call says so.
"""

import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import psutil
import ray
from ray.exceptions import GetTimeoutError
from ray.train.backend import Backend, BackendConfig

GLOO = "GLOO_SOCKET_IFNAME"
NCCL = ("TORCH_NCCL_ASYNC_ERROR_HANDLING", "1")
"""Has waits of NCCL end with an error where a rank is gone; Ray Train itself sets that."""
LOOPBACK = "127.0.0.1"
LEAVE_WITHIN_S = "TORCH_PROCESS_GROUP_SHUTDOWN_TIMEOUT_S"
"""Names the seconds that workers have to say goodbye, which those that were killed do not."""


@dataclass
class MeetingConfig(BackendConfig):  # type: ignore[misc]  # Ray has no types
    """Has workers join in a process group of torch's, and gloo's at the addresses that their nodes have in the cluster.

    By itself gloo listens at the address of the host's name. On many machines that is 127.0.0.1 or 127.0.1.1, where no
    other host gets to.

    Attributes:
        timeout_s: Seconds after which a collective fails.
        use_gpu: Whether they talk by NCCL.
        coordinator: Actor that is told why workers could not meet; Ray Train itself tries again without a word.
    """

    timeout_s: int = 1800
    use_gpu: bool = False
    coordinator: Any = None

    @property
    def backend_cls(self) -> type[Any]:
        """What does so."""
        return _Meeting


class _Meeting(Backend):  # type: ignore[misc]
    share_cuda_visible_devices = True

    def on_start(self, worker_group: Any, backend_config: MeetingConfig) -> None:
        addresses = set(worker_group.execute(get_ready))
        if len(addresses) > 1 or addresses == {LOOPBACK}:
            worker_group.execute(choose_interface)
        try:
            _meet(worker_group, backend_config)
        except Exception as error:
            why = str(getattr(error, "cause", error)).strip().splitlines() or [type(error).__name__]
            if backend_config.coordinator is not None:
                backend_config.coordinator.report_not_joined.remote(f"the workers could not meet: {why[0]}")
            raise

    def on_shutdown(self, worker_group: Any, backend_config: MeetingConfig) -> None:
        leaving = worker_group.execute_async(leave, alone=len(worker_group) == 1)
        with suppress(GetTimeoutError):
            ray.get(leaving, timeout=float(os.environ.get(LEAVE_WITHIN_S, "3")))


def _meet(group: Any, config: MeetingConfig) -> None:
    backend, meeting = "nccl" if config.use_gpu else "gloo", group.execute_single(0, open_store)
    ray.get(group.execute_async(join, backend, meeting, config.timeout_s))


def get_ready() -> str:
    """Import in a worker what it needs, in all of them at once; returns its node's address in the cluster."""
    import metaray.distributed.worker  # noqa: F401

    return str(ray.util.get_node_ip_address())


def open_store() -> tuple[str, int]:
    """Open, in rank 0, the store where the ranks meet: at this node's address in the cluster and no other.

    By itself torch opens it at every address of the host, for everybody; so it is only where no interface has the
    address, as behind a translated one.

    Returns:
        The address and its port.
    """
    from torch.distributed import TCPStore  # type: ignore[attr-defined]  # torch exports it, but not by name

    address = str(ray.util.get_node_ip_address())
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.create_server((address if interface_of(address) else "", 0), family=family)
    port = int(listener.getsockname()[1])
    store = TCPStore(address, port, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach())
    _kept.append(store)
    return address, port


_kept: list[Any] = []
"""Stores are open as long as this process."""


def join(backend: str, meeting: tuple[str, int], timeout_s: int) -> None:
    """Join the others, in a worker.

    Args:
        backend: "nccl" or "gloo".
        meeting: Address and port of the store that rank 0 has opened.
        timeout_s: Seconds after which a collective fails.
    """
    from torch import distributed
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    here = ray.train.get_context()
    rank, world_size = here.get_world_rank(), here.get_world_size()
    found = {
        "MASTER_ADDR": meeting[0],
        "MASTER_PORT": meeting[1],
        "RANK": rank,
        "WORLD_SIZE": world_size,
        "LOCAL_RANK": here.get_local_rank(),
        "LOCAL_WORLD_SIZE": here.get_local_world_size(),
        "NODE_RANK": here.get_node_rank(),
    }
    # As torch's own launchers do: libraries in a network's code may read them.
    os.environ.update({name: str(value) for name, value in found.items()})
    os.environ.setdefault(*NCCL)
    within = timedelta(seconds=timeout_s)
    store = _kept[-1] if rank == 0 else TCPStore(*meeting, is_master=False, timeout=within)
    store.set_timeout(within)
    distributed.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=within)


def leave(*, alone: bool) -> None:
    """Leave the others, in a worker."""
    from torch import distributed

    if not alone and distributed.is_initialized():
        distributed.destroy_process_group()


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
