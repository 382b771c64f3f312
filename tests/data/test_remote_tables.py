"""Tables that lie elsewhere are opened as class stores are: fetched once a node, verified, without secrets."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from metaray.config import replace
from metaray.data.draws import Draws
from metaray.data.episode_spec import EpisodeSpec
from metaray.data.group_table import GroupTable
from metaray.data.task import same_examples
from metaray.errors import InputError
from tests.cli.test_data_table import Command
from tests.data.patients import MakeTable
from tests.data.small_server import SmallServer, small_server, without_proxies

SPEC = EpisodeSpec(shots=2, queries=3)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallServer]:
    monkeypatch.setenv("METARAY_CACHE", str(tmp_path / "cache"))
    with small_server() as served:
        without_proxies(monkeypatch, served)
        yield served


def test_it_is_the_same_table(make_table: MakeTable, server: SmallServer) -> None:
    """Over HTTP, from S3 and as a file:// URI; fetched once; the path is how it is known."""
    local = make_table()
    server.objects["/t.arrow"] = server.objects["/bucket/t.arrow"] = Path(local.path).read_bytes()
    for path in (f"{server.address}/t.arrow", "s3://bucket/t.arrow", f"file://{Path(local.path).absolute()}"):
        table = replace(local, path=path)
        assert table.fingerprint == local.fingerprint and table.path == path
        drawn = [one.sample_task(Draws(0, "meta-test", 1), "meta-test", SPEC) for one in (table, local)]
        assert same_examples(*drawn)
        table.verify()
        assert table.stamp == (() if "file" not in path else local.stamp)
    assert server.count("GET") == 2


def test_a_damaged_one_is_refused(make_table: MakeTable, server: SmallServer) -> None:
    data = bytearray(Path(make_table().path).read_bytes())
    data[-2000] ^= 1
    server.objects["/t.arrow"] = bytes(data)
    with pytest.raises(InputError, match=r"/t\.arrow: fetched whole \(\d+ bytes\), but damaged"):
        GroupTable(path=f"{server.address}/t.arrow").check("meta-train", SPEC)
    with pytest.raises(InputError, match="unknown scheme of 's4://b/t' 's4'"):
        GroupTable.parse({"path": "s4://b/t"}, where="source")


def test_describe(command: Command, make_table: MakeTable, server: SmallServer) -> None:
    """By its URI it says the same as by its path."""
    table = make_table()
    server.objects["/t.arrow"] = Path(table.path).read_bytes()
    uri = f"{server.address}/t.arrow"
    found = [command("data", "describe", path, "--shots", "2", "--queries", "2") for path in (uri, table.path)]
    assert found[0].code == 0 and found[0].out == found[1].out.replace(table.path, uri)
    code, _, err = command("data", "describe", f"{server.address}/none.arrow")
    assert code == 2 and "none.arrow" in err
