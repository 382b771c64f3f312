import threading
from collections.abc import Iterator

import pytest

from metaray.errors import InputError
from metaray.submission import bucket
from metaray.submission.bucket import check_bucket
from tests.data.small_server import SmallServer, small_server, without_proxies


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallServer]:
    with small_server() as server:
        without_proxies(monkeypatch, server)
        yield server


def test_a_bucket_that_is_not_there_is_refused(server: SmallServer) -> None:
    with pytest.raises(
        InputError, match=r"--storage 's3://runs/x': there is no bucket 'runs'; make it.*AWS_ENDPOINT_URL"
    ):
        check_bucket("s3://runs/x", print)


def test_a_bucket_that_is_there_and_other_storages_are_let_pass(server: SmallServer) -> None:
    server.objects["/runs"] = server.objects["/runs/"] = b""
    notes: list[str] = []
    for storage in ("s3://runs", "s3://runs/x/y?region=eu-west-1", "/data/runs", "gs://runs", "file:///mnt/runs"):
        check_bucket(storage, notes.append)
    assert notes == []


def test_what_only_the_nodes_may_reach_is_said_and_let_pass(
    server: SmallServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []
    server.statuses |= {("HEAD", "/runs"): 403, ("HEAD", "/runs/"): 403}
    check_bucket("s3://runs/x", notes.append)
    monkeypatch.setattr(bucket, "WITHIN_S", 0.0)
    monkeypatch.setattr(bucket, "_look", lambda *_: threading.Event().wait(0.2))
    check_bucket("s3://runs/x", notes.append)
    refused, silent = notes
    assert refused.startswith("bucket 'runs' can't be looked for from here (") and "ACCESS_DENIED" in refused
    assert "no answer within 0 s" in silent
