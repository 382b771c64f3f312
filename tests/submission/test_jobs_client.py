import threading
from collections.abc import Iterator

import pytest

from metaray.errors import InputError, RunFailed
from metaray.submission import client as jobs_client
from metaray.submission.client import AlreadyThere, ClusterAway, JobsClient, Refused, connect
from tests.submission.fake_cluster import TOKEN, FakeCluster, fake_cluster


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCluster]:
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    # A proxy that would take the token elsewhere, were it asked; and an address that Ray's own client would prefer.
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:9")
    with fake_cluster() as cluster:
        yield cluster


@pytest.fixture
def client(cluster: FakeCluster) -> JobsClient:
    return JobsClient(cluster.address, TOKEN)


def test_a_job_is_sent_whole(cluster: FakeCluster, client: JobsClient) -> None:
    client.submit("metaray-a", "exec python", {"env_vars": {"A": "b"}}, {"metaray.run": "a"})
    (job,) = cluster.jobs
    assert job["entrypoint"] == "exec python" and job["runtime_env"] == {"env_vars": {"A": "b"}}
    (seen,) = client.jobs()
    assert (seen.id, seen.run, seen.status, seen.has_ended) == ("metaray-a", "a", "PENDING", False)
    with pytest.raises(AlreadyThere):
        client.submit("metaray-a", "exec python", {}, {})


def test_packages_are_uploaded_once(cluster: FakeCluster, client: JobsClient) -> None:
    for _ in range(2):
        client.upload("gcs://_ray_pkg_1.zip", b"zip")
    assert cluster.packages == {"/api/packages/gcs/_ray_pkg_1.zip": b"zip"}
    assert [method for method, _ in cluster.asked] == ["GET", "PUT", "GET"]


def test_jobs_come_newest_first(cluster: FakeCluster, client: JobsClient) -> None:
    cluster.add("old", "SUCCEEDED", start_time=1000, end_time=61_000, driver_exit_code=0)
    cluster.add("new", "FAILED", run="r", start_time=2000, driver_exit_code=75, message="m")
    new, old = client.jobs()
    assert (new.id, new.run, new.exit_code, new.message, new.ended) == ("new", "r", 75, "m", None)
    assert old.started is not None and old.ended is not None
    assert (old.run, (old.ended - old.started).total_seconds()) == ("", 60.0)


def test_python_where_the_head_tells_it(cluster: FakeCluster, client: JobsClient) -> None:
    assert client.python_version() is None
    cluster.python = "3.12.4"
    assert client.python_version() == "3.12.4"


def test_the_python_that_runs_ray(cluster: FakeCluster, client: JobsClient) -> None:
    assert client.head_python() is None
    cluster.command = ["raylet", "--python_worker_command=/opt/venv/bin/python3.11 /opt/setup_worker.py x"]
    assert client.head_python() == "/opt/venv/bin/python3.11"
    cluster.command = ["raylet"]
    assert client.head_python() is None


def test_errors(cluster: FakeCluster, client: JobsClient) -> None:
    cluster.statuses["GET", "/api/jobs/x"] = 500, "Traceback (most recent call last)\nOSError: disk full"
    with pytest.raises(RunFailed, match="HTTP 500 to /api/jobs/x: OSError: disk full$"):
        client.job("x")
    with pytest.raises(Refused, match=r"HTTP 401\): no token is sent; put its token into RAY_AUTH_TOKEN, or into ~/"):
        JobsClient(cluster.address, None).jobs()
    with pytest.raises(Refused, match=r"HTTP 403\): the token is not the cluster's") as caught:
        JobsClient(cluster.address, "hushhush").jobs()
    assert "hushhush" not in str(caught.value)
    with pytest.raises(ClusterAway, match=r"no Ray cluster answers at http://127\.0\.0\.1:9: .*refused"):
        JobsClient("http://127.0.0.1:9", TOKEN).jobs()


def test_the_token_follows_no_redirection(cluster: FakeCluster, client: JobsClient) -> None:
    with fake_cluster() as other:
        cluster.statuses["GET", "/api/jobs/"] = 302, f"{other.address}/api/jobs/"
        with pytest.raises(RunFailed, match="HTTP 302"):
            client.jobs()
        assert other.asked == []


def test_a_connection_asks_without_the_token_first(cluster: FakeCluster) -> None:
    assert connect(cluster.address, insecure=False, runs_code=True).jobs() == []
    assert cluster.authorizations == [None, f"Bearer {TOKEN}", f"Bearer {TOKEN}"]


def test_a_cluster_without_authentication(cluster: FakeCluster) -> None:
    cluster.token = None
    with pytest.raises(InputError, match=r"asks nobody for a token: .*RAY_AUTH_MODE=token.*--insecure"):
        connect(cluster.address, insecure=False, runs_code=True)
    connect(cluster.address, insecure=True, runs_code=True).jobs()
    connect(cluster.address, insecure=False, runs_code=False).jobs()
    assert set(cluster.authorizations) == {None}  # it does not get a token that is for another


def test_a_wrong_token_or_none(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "wrong")
    with pytest.raises(Refused, match="HTTP 403"):
        connect(cluster.address, insecure=True, runs_code=True)
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(Refused, match="HTTP 401"):
        connect(cluster.address, insecure=True, runs_code=True)


def test_what_is_no_dashboard_gets_no_token(cluster: FakeCluster) -> None:
    cluster.token, cluster.statuses["GET", "/api/version"] = None, (404, "not found")
    with pytest.raises(InputError, match="is no Ray dashboard"):
        connect(cluster.address, insecure=True, runs_code=True)
    assert cluster.authorizations == [None]


def test_plain_http_elsewhere_is_not_even_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    with pytest.raises(InputError, match="plain HTTP to another machine"):
        connect("http://head.invalid:8265", insecure=False, runs_code=False)


def test_an_answer_without_end_is_given_up(
    cluster: FakeCluster, client: JobsClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.statuses["GET", "/api/jobs/"] = 200, "[" + " " * (2 << 20)
    monkeypatch.setattr(jobs_client, "LONGEST_ANSWER", 1 << 20)
    with pytest.raises(RunFailed, match="answers with more than 1 MB"):
        client.jobs()
    held = threading.Event()
    monkeypatch.setattr(JobsClient, "_answer", lambda *_: held.wait())
    monkeypatch.setattr(jobs_client, "PATIENCE", 0.0)
    with pytest.raises(ClusterAway, match=r"no Ray cluster answers at .*: no whole answer within 0 s"):
        client.jobs()
    held.set()
