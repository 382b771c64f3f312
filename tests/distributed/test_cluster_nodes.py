"""Nodes of the session's cluster, which has one; of several: tests/cluster."""

from pathlib import Path

import pytest

from metaray.distributed import cluster_nodes as nodes
from metaray.distributed.cluster_nodes import alive_nodes, check_storage_everywhere, samplers_on
from metaray.errors import InputError
from metaray.records.storage import Storage
from metaray.training.placement import ClusterNode

pytestmark = pytest.mark.ray


def test_the_nodes_of_a_cluster(ray_cluster: None) -> None:
    (node,) = alive_nodes()
    assert (node.cpus, node.gpus) == (4, 0)
    assert samplers_on("any", use_gpu=False) is None
    assert samplers_on("workers", use_gpu=False) == samplers_on("cpu", use_gpu=False) == [node.id]


@pytest.fixture
def among_others(ray_cluster: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """This node is asked as if there were others."""
    monkeypatch.setattr(nodes, "_is_alone", lambda found: False)


def test_where_there_is_no_other_node_none_is_asked(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[ClusterNode] = []
    monkeypatch.setattr(nodes, "_ask", lambda node, root, mark: asked.append(node))
    check_storage_everywhere(Storage(str(tmp_path)))
    assert asked == [] and not nodes._is_alone([*alive_nodes(), ClusterNode("other", "203.0.113.9", 1.0, 0.0)])


def test_a_storage_that_all_see_is_left_as_it_was(among_others: None, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    check_storage_everywhere(Storage(str(tmp_path / "runs")))
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_storage_that_a_node_cannot_write_to(
    among_others: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def elsewhere(node: ClusterNode, root: str, mark: str) -> object:
        (tmp_path / "file").write_text("")
        return ask(node, str(tmp_path / "file" / "runs"), mark)

    ask = nodes._ask
    monkeypatch.setattr(nodes, "_ask", elsewhere)
    with pytest.raises(InputError, match=r"cannot be used from every node: node .*Not a directory"):
        check_storage_everywhere(Storage(str(tmp_path)))


def test_a_storage_that_is_another_on_each_node(
    among_others: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = nodes._ask
    monkeypatch.setattr(nodes, "_ask", lambda node, root, mark: ask(node, str(tmp_path / "of-the-node"), mark))
    (tmp_path / "mine").mkdir()
    with pytest.raises(InputError, match=r"is not one place: 1 of 1 nodes \(.*\) have a folder of their own"):
        check_storage_everywhere(Storage(str(tmp_path / "mine")))
    assert list((tmp_path / "mine").iterdir()) == []
