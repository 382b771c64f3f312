"""The nodes of a Ray cluster: whether all see the storage, and which of them sampler actors run on."""

import uuid
from contextlib import suppress
from typing import Any, NamedTuple

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from metaray.errors import InputError
from metaray.records.storage import Storage
from metaray.training.placement import ClusterNode, sampler_nodes

ANSWER_WITHIN_S = 60.0


class _Answer(NamedTuple):
    """What a node found.

    Attributes:
        sees: Whether the driver's probe is there.
        problem: Why it could not read or write; empty if it could.
    """

    sees: bool
    problem: str


def alive_nodes() -> list[ClusterNode]:
    """The nodes of the cluster that Ray is connected to."""
    return [
        ClusterNode(node["NodeID"], node["NodeManagerAddress"], have.get("CPU", 0.0), have.get("GPU", 0.0))
        for node in ray.nodes()
        if node["Alive"]
        for have in (node["Resources"],)
    ]


def check_storage_everywhere(root: Storage) -> None:
    """Write a probe from every node, and look for it from here.

    Where there is no other node than this one, which has done so by itself, none is asked.

    Raises:
        InputError: If nodes cannot write there, or write to a place of their own; the message names them.
    """
    nodes = alive_nodes()
    if _is_alone(nodes):
        return
    mark = f".probe-{uuid.uuid4().hex}"
    root.write(mark, b"probe")
    try:
        asked = {node: _ask(node, root.root, mark) for node in nodes}
        answers = {node: _answer(ref) for node, ref in asked.items()}
        lost = [node for node, answer in answers.items() if not answer.problem and not _arrived(root, mark, node)]
    finally:
        for name in (mark, *(_name(mark, node) for node in nodes)):
            with suppress(OSError):
                root.delete_file(name)
    failed = [f"node {node.address}: {answer.problem}" for node, answer in answers.items() if answer.problem]
    if failed:
        raise InputError(f"storage {root.shown!r} cannot be used from every node: {'; '.join(failed)}")
    alone = [node.address for node in nodes if node in lost or not answers[node].sees]
    if alone:
        raise InputError(
            f"storage {root.shown!r} is not one place: {len(alone)} of {len(nodes)} nodes ({', '.join(alone)}) have a "
            "folder of their own by that name, where the others would not find what they write; give --storage a URI "
            "such as s3://bucket/runs, or a folder that all nodes mount"
        )


def _is_alone(nodes: list[ClusterNode]) -> bool:
    """Whether there is no node but that of this process."""
    return [node.id for node in nodes] == [ray.get_runtime_context().get_node_id()]


def samplers_on(where: str, *, use_gpu: bool) -> list[str] | None:
    """Ids of the nodes that sampler actors are spread over; None leaves it to Ray."""
    return sampler_nodes(where, alive_nodes(), use_gpu=use_gpu)


def _probe(root: str, mark: str, mine: str) -> _Answer:
    """Runs on a node."""
    storage = Storage(root)
    try:
        storage.write(mine, b"probe")
        return _Answer(storage.exists(mark), "")
    except (OSError, ValueError) as error:
        return _Answer(False, str(error))


def _ask(node: ClusterNode, root: str, mark: str) -> Any:
    there = NodeAffinitySchedulingStrategy(node.id, soft=False)
    return ray.remote(num_cpus=0, max_retries=1, scheduling_strategy=there)(_probe).remote(
        root, mark, _name(mark, node)
    )


def _answer(ref: Any) -> _Answer:
    try:
        found: _Answer = ray.get(ref, timeout=ANSWER_WITHIN_S)
        return found
    except GetTimeoutError:
        return _Answer(False, f"no answer within {ANSWER_WITHIN_S:g} s")
    except RayError as error:
        return _Answer(False, str(error).strip().splitlines()[-1])


def _arrived(root: Storage, mark: str, node: ClusterNode) -> bool:
    return root.exists(_name(mark, node))


def _name(mark: str, node: ClusterNode) -> str:
    return f"{mark}-{node.id}"
