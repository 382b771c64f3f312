from typing import Any

import pytest

from metaray.errors import InputError, RunFailed
from metaray.submission import follow
from metaray.submission.client import ClusterAway, Job, JobsClient
from tests.submission.fake_cluster import FakeCluster


def a_job(status: str, exit_code: int | None = None, message: str = "", name: str = "j", run: str = "") -> Job:
    return Job(name, run, status, message, None, None, exit_code, "")


def test_find() -> None:
    jobs = [a_job("RUNNING", name=n, run=r) for n, r in (("metaray-a-2", "a"), ("metaray-a", "a"), ("a", "other"))]
    assert follow.find(jobs, "metaray-a") is jobs[1]
    assert follow.find(jobs, "a") is jobs[2]  # an id comes before a run
    assert follow.find(jobs[:2], "a") is jobs[0]  # the newest of a run
    with pytest.raises(InputError, match=r"unknown job 'metaray-b'. Did you mean 'metaray-a'"):
        follow.find(jobs, "metaray-b")


def test_a_log_is_handed_out_once_as_it_grows(cluster: FakeCluster, client: JobsClient) -> None:
    job = cluster.add("j", "PENDING")
    seen: list[str] = []
    turns: list[Any] = [("RUNNING", "one\n"), ("RUNNING", "one\ntwo\n"), ("SUCCEEDED", "one\ntwo\nthree\n")]

    def turn(_: float) -> None:
        job["status"], cluster.logs["j"] = turns.pop(0)

    clock = iter(range(1000))
    ended = follow.follow(client, "j", seen.append, clock=lambda: 100.0 * next(clock), sleep=turn)
    assert ended.status == "SUCCEEDED" and "".join(seen) == "one\ntwo\nthree\n" and turns == []


def test_long_logs_are_looked_at_less_often(cluster: FakeCluster, client: JobsClient) -> None:
    job, now = cluster.add("j", "RUNNING"), [0.0]
    answer = cluster.answer

    def slowly(method: str, path: str, body: bytes) -> tuple[int, bytes]:
        now[0] += 2.0 if path.endswith("/logs") else 0.0
        return answer(method, path, body)

    cluster.answer = slowly  # type: ignore[method-assign]

    def sleep(seconds: float) -> None:
        now[0] += seconds
        job["status"] = "RUNNING" if now[0] < 100 else "SUCCEEDED"

    follow.follow(client, "j", lambda _: None, clock=lambda: now[0], sleep=sleep)
    looks = [path for _, path in cluster.asked if path.endswith("/logs")]
    assert len(looks) == 4  # about every 40 s, and once at the end


def test_a_cluster_may_be_away_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now, away = [0.0], [60.0]

    def job(self: JobsClient, _: str) -> Job:
        if 10 < now[0] < 10 + away[0]:
            raise ClusterAway("away")
        return a_job("SUCCEEDED" if now[0] > 200 else "RUNNING")

    def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(JobsClient, "job", job)
    monkeypatch.setattr(JobsClient, "logs", lambda *_: "")
    client = JobsClient("http://localhost:1", None)
    follow.follow(client, "j", lambda _: None, clock=lambda: now[0], sleep=sleep)
    now[0], away[0] = 0.0, 130.0
    with pytest.raises(ClusterAway):
        follow.follow(client, "j", lambda _: None, clock=lambda: now[0], sleep=sleep)
    assert 130 < now[0] < 135


def test_how_it_ended_is_known_without_its_log(cluster: FakeCluster, client: JobsClient) -> None:
    cluster.add("j", "FAILED", driver_exit_code=2)
    cluster.statuses["GET", "/api/jobs/j/logs"] = 500, "the node is gone"
    assert follow.follow(client, "j", lambda _: None).exit_code == 2


@pytest.mark.parametrize(
    ("job", "code", "reason"),
    [
        (a_job("SUCCEEDED", 0), 0, ""),
        (a_job("FAILED", 1), 1, ""),
        (a_job("FAILED", 2), 2, ""),
        (a_job("FAILED", 75), 75, ""),
        (a_job("STOPPED"), 75, ""),
        (a_job("FAILED", -9), 1, "job j was killed (exit code -9)"),
        (a_job("FAILED", None, "runtime_env setup\nfailed"), 1, "job j did not run: runtime_env setup failed"),
        (a_job("FAILED", 127), 1, "job j was killed (exit code 127)"),
    ],
)
def test_exit_codes(job: Job, code: int, reason: str) -> None:
    assert (follow.exit_code(job), follow.reason(job)) == (code, reason)


def test_stop_waits(cluster: FakeCluster, client: JobsClient) -> None:
    cluster.add("j", "RUNNING")
    cluster.on_stop = ["RUNNING"] * 70 + ["STOPPED"]
    slept: list[float] = []
    assert follow.stop(client, client.job("j"), sleep=slept.append).status == "STOPPED"
    assert len(slept) == 70
    with pytest.raises(InputError, match="has ended already: STOPPED"):
        follow.stop(client, client.job("j"), sleep=slept.append)


def test_a_job_that_does_not_stop(cluster: FakeCluster, client: JobsClient) -> None:
    cluster.add("j", "RUNNING")
    cluster.on_stop = []
    with pytest.raises(RunFailed, match="has not stopped within 180 s"):
        follow.stop(client, client.job("j"), sleep=lambda _: None)


def test_last_words() -> None:
    log = "step 1\nstopping after this step\nstopped: after step 7; a checkpoint holds it; --run r goes on from there\n"
    assert follow.last_words(log) == "after step 7; a checkpoint holds it; --run r goes on from there"
    assert follow.last_words("step 1\n") == ""
