"""`metaray submit`, and `metaray jobs`."""

import json
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metaray.cli.help import Command, Group
from metaray.cli.options import AsJson
from metaray.cli.parcel import print_pack
from metaray.displays.table import print_table
from metaray.errors import RunStopped, unknown

if TYPE_CHECKING:
    from metaray.submission.client import Job, JobsClient

COMMANDS = ("train", "tune")
HEAD = "URL of Ray's dashboard; by default $RAY_API_SERVER_ADDRESS, or $RAY_ADDRESS where that is a URL."
PASS_ON = {"ignore_unknown_options": True, "allow_extra_args": True}
"""What `submit` does not know is for the command that it submits."""
Address = Annotated[str | None, typer.Option(metavar="http://HOST:8265", help=HEAD)]
Insecure = Annotated[
    bool, typer.Option("--insecure", help="Accept plain HTTP to another machine, and a cluster without authentication.")
]
JobName = Annotated[str, typer.Argument(metavar="JOB", help="Id of a job, or the name of its run.")]
Follow = Annotated[bool, typer.Option("--follow", help="Show the log until the job ends, and exit as it does.")]

jobs = typer.Typer(cls=Group, help="List the jobs of a Ray cluster, look at them, and stop them.")


def submit(
    context: typer.Context,
    command: Annotated[
        str,
        typer.Argument(
            metavar="COMMAND", help="The command to run there: train or tune; its RECIPE and options follow it."
        ),
    ],
    address: Address = None,
    follow: Follow = False,
    local_to_head: Annotated[
        bool, typer.Option("--local-to-head", help="Accept that the result is kept on the head node alone.")
    ] = False,
    insecure: Insecure = False,
    python: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Python on the head node with the job's packages; by default that of Ray."),
    ] = None,
    include: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN", help="Patterns of files to send besides those that git tracks and the recipe imports."
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="Patterns of files that are not to be sent.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the files that would be sent, and send none.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run `metaray train` or `metaray tune` as a job of a Ray cluster.

    Options besides those below are those of the command; `metaray train --help` and `metaray tune --help` tell them.
    """
    from metaray.api import submit as sending
    from metaray.submission.access import cluster_address
    from metaray.submission.request import check_secrets

    if command not in COMMANDS:
        raise unknown("command to submit", command, COMMANDS)
    given = _parsed(context, command)
    patterns = tuple(include or ()), tuple(exclude or ())
    check_secrets(context.args)
    if dry_run:
        sending.described(command, given)
        print_pack(sending.packed(given["recipe"], patterns)[1], as_json=as_json)
        return
    where = cluster_address(address)
    order, files = sending.order_of(command, context.args, given, where, python, patterns, local=local_to_head)
    submitted = sending.sent(order, files, given["storage"], where, insecure=insecure, note=_note)
    job = submitted.id
    print(f"job: {job}", file=sys.stderr if as_json else sys.stdout, flush=True)
    _note(f"run: {order.run}")
    if follow:
        _follow(submitted.client, job, as_json=as_json)
    elif as_json:
        _print_jobs([submitted.job])
    else:
        _note(f"`metaray jobs logs {job} --follow` shows it, `metaray jobs stop {job}` stops it")


@jobs.command("list", cls=Command)
def list_jobs(address: Address = None, insecure: Insecure = False, as_json: AsJson = False) -> None:
    """List all jobs, the newest first."""
    found = _client(address, insecure=insecure).jobs()
    if as_json:
        print(json.dumps([_tree(job) for job in found], indent=2))
        return
    rows = [(job.id, job.run, job.status, _code(job), _time(job.started), _lasted(job)) for job in found]
    print_table(("job", "run", "status", "exit code", "started (UTC)", "lasted"), rows)


@jobs.command(cls=Command)
def status(name: JobName, address: Address = None, insecure: Insecure = False, as_json: AsJson = False) -> None:
    """Show one job: its run, how it stands, and what it runs."""
    job = _found(_client(address, insecure=insecure), name)
    if as_json:
        _print_jobs([job])
        return
    print(f"{job.id}: {job.status}" + (f" (exit code {job.exit_code})" if job.exit_code is not None else ""))
    for key, value in (("run", job.run), ("started", _time(job.started)), ("lasted", _lasted(job))):
        print(f"{key}: {value}")
    print(f"command: {job.entrypoint}")
    if job.message:
        print(f"Ray says: {job.message.splitlines()[0]}")


@jobs.command(cls=Command)
def logs(name: JobName, follow: Follow = False, address: Address = None, insecure: Insecure = False) -> None:
    """Print what a job has printed so far; with --follow all of it, until it ends."""
    client = _client(address, insecure=insecure)
    job = _found(client, name)
    if follow:
        _follow(client, job.id, as_json=False)
    else:
        sys.stdout.write(client.logs(job.id))


@jobs.command(cls=Command)
def stop(name: JobName, address: Address = None, insecure: Insecure = False, as_json: AsJson = False) -> None:
    """Stop a job once its run has written a checkpoint; submitting the run again goes on from there."""
    from metaray.submission import follow
    from metaray.submission.request import STOP_WITHIN_S

    client = _client(address, insecure=insecure)
    job = _found(client, name)
    _note(f"stopping {job.id}; it has up to {STOP_WITHIN_S} s to write a checkpoint")
    ended = follow.stop(client, job)
    if as_json:
        _print_jobs([ended])
        return
    words = follow.last_words(client.logs(job.id))
    print(f"{ended.id}: {ended.status}" + (f", {words}" if words else ", without a word of its own; see its log"))


def _parsed(context: typer.Context, command: str) -> dict[str, Any]:
    """The submitted command's own options, as it would read them itself; a misspelt one ends here."""
    group: Any = context.find_root().command
    parsed: dict[str, Any] = group.commands[command].make_context(f"metaray {command}", list(context.args)).params
    return parsed


def _client(address: str | None, *, insecure: bool) -> "JobsClient":
    from metaray.submission.access import cluster_address
    from metaray.submission.client import connect

    return connect(cluster_address(address), insecure=insecure, runs_code=False)


def _found(client: "JobsClient", name: str) -> "Job":
    from metaray.submission.follow import find

    return find(client.jobs(), name)


def _follow(client: "JobsClient", job: str, *, as_json: bool) -> None:
    """Show the log, and exit as the job does."""
    from metaray.submission.follow import exit_code, follow, reason

    def write(text: str) -> None:
        print(text, end="", file=sys.stderr if as_json else sys.stdout, flush=True)

    try:
        ended = follow(client, job, write)
    except KeyboardInterrupt:
        raise RunStopped(
            f"no longer following; job {job} goes on: `metaray jobs logs {job} --follow` shows it, "
            f"`metaray jobs stop {job}` stops it"
        ) from None
    if as_json:
        _print_jobs([ended])
    _note(reason(ended) or f"{ended.id}: {ended.status}")
    if code := exit_code(ended):
        raise typer.Exit(code)


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _print_jobs(found: "list[Job]") -> None:
    for job in found:
        print(json.dumps(_tree(job), indent=2))


def _tree(job: "Job") -> dict[str, Any]:
    times = {"started": job.started, "ended": job.ended}
    tree: dict[str, Any] = {"job": job.id, "run": job.run, "status": job.status, "exit_code": job.exit_code}
    return tree | {key: None if at is None else at.isoformat() for key, at in times.items()}


def _code(job: "Job") -> str:
    return "" if job.exit_code is None else str(job.exit_code)


def _time(at: datetime | None) -> str:
    return "" if at is None else f"{at:%Y-%m-%d %H:%M:%S}"


def _lasted(job: "Job") -> str:
    if job.started is None:
        return ""
    seconds = int(((job.ended or datetime.now(UTC)) - job.started).total_seconds())
    return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
