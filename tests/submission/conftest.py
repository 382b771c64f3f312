"""A fake cluster, and a client of it."""

from collections.abc import Iterator

import pytest

from metaray.submission.client import JobsClient
from tests.submission.fake_cluster import TOKEN, FakeCluster, fake_cluster


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with fake_cluster() as cluster:
        yield cluster


@pytest.fixture
def client(cluster: FakeCluster) -> JobsClient:
    return JobsClient(cluster.address, TOKEN)
