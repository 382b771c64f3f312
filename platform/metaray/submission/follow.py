"""What becomes of a job: its log as it grows, its end, its exit code."""

import time
from collections.abc import Callable, Sequence

from metaray.errors import InputError, RunFailed, unknown
from metaray.retry import AWAY_WITHIN_S
from metaray.submission.client import ClusterAway, Job, JobsClient
from metaray.submission.request import STOP_WITHIN_S

POLL_S = 1.0
LOG_SHARE = 0.05
"""Each look at a log transfers all of it: so much of the time may go into that."""
STOPPED = 75


def find(jobs: Sequence[Job], name: str) -> Job:
    """The job of that id, else the newest of that run.

    Raises:
        InputError: If there is none; lists those there are.
    """
    for job in (*(job for job in jobs if job.id == name), *(job for job in jobs if job.run == name)):
        return job
    raise unknown("job", name, [job.id for job in jobs])


def follow(
    client: JobsClient,
    job_id: str,
    write: Callable[[str], None],
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Job:
    """Hand out the log as it grows, until the job has ended; returns how.

    Raises:
        ClusterAway: If the cluster does not answer for two minutes.
    """
    seen, next_log_s, answered_s = 0, clock(), clock()
    while True:
        try:
            job = client.job(job_id)
            if job.has_ended or clock() >= next_log_s:
                began_s = clock()
                text = _log(client, job_id)
                write(text[seen:])
                seen = max(seen, len(text))
                next_log_s = clock() + (clock() - began_s) / LOG_SHARE
            answered_s = clock()
            if job.has_ended:
                return job
        except ClusterAway:
            if clock() - answered_s > AWAY_WITHIN_S:
                raise
        sleep(POLL_S)


def _log(client: JobsClient, job_id: str) -> str:
    """Empty where the cluster answers, but not the node that has the log: how a job ended is known all the same."""
    try:
        return client.logs(job_id)
    except RunFailed:
        return ""


def exit_code(job: Job) -> int:
    """Exit code of an ended job, as if the command had run here."""
    if job.status == "SUCCEEDED":
        return 0
    if job.status == "STOPPED":
        return STOPPED
    return job.exit_code if job.exit_code is not None and 0 < job.exit_code < 126 else 1


def reason(job: Job) -> str:
    """Why a job failed, where its log cannot say: it was killed, or never came to run."""
    if job.status != "FAILED" or (job.exit_code is not None and 0 < job.exit_code < 126):
        return ""
    if job.exit_code is not None:
        return f"job {job.id} was killed (exit code {job.exit_code})"
    lines = job.message.strip().splitlines() or ["Ray does not say why"]
    return f"job {job.id} did not run: {lines[-1] if len(lines) > 20 else ' '.join(lines)}"


def stop(client: JobsClient, job: Job, *, sleep: Callable[[float], None] = time.sleep) -> Job:
    """Stop a job and wait until it has; returns how it ended.

    Raises:
        RunFailed: If it does not stop.
    """
    if job.has_ended:
        raise InputError(f"job {job.id} has ended already: {job.status}")
    client.stop(job.id)
    for _ in range(STOP_WITHIN_S + 60):
        found = client.job(job.id)
        if found.has_ended:
            return found
        sleep(POLL_S)
    raise RunFailed(f"job {job.id} has not stopped within {STOP_WITHIN_S + 60} s")


def last_words(log: str) -> str:
    """The line with which a run says that it stopped, and where it goes on; empty if it could not."""
    lines = [line for line in log.splitlines() if line.startswith("stopped: ")]
    return lines[-1].removeprefix("stopped: ") if lines else ""
