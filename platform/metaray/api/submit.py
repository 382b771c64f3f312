"""`metaray.submit`: a run or a search of this machine's recipe, as a job of a cluster."""

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import metaray
from metaray.api.train import train
from metaray.api.tune import tune
from metaray.config import check_name
from metaray.errors import InputError, unknown
from metaray.experiment.overrides import override
from metaray.experiment.recipes import load_recipe
from metaray.records.provenance import git_state
from metaray.records.run import fresh_name
from metaray.submission.access import cluster_address
from metaray.submission.bucket import check_bucket
from metaray.submission.choice import Project, imported
from metaray.submission.client import Job, JobsClient, connect
from metaray.submission.follow import follow as follow_job
from metaray.submission.job import versions
from metaray.submission.packing import Pack, pack
from metaray.submission.request import (
    Order,
    check_secrets,
    check_versions,
    lasting_storage,
    lasting_tracking,
    send,
    shipped_recipe,
    with_options,
)
from metaray.training.placement import Placement, Workers
from metaray.tuning.recipes import describe
from metaray.tuning.search import Search

COMMANDS: Mapping[str, Callable[..., Any]] = {"train": train, "tune": tune}
Patterns = tuple[tuple[str, ...], tuple[str, ...]]
"""Patterns of files to include, and of files to exclude."""

OPTIONS = {"settings": "--set", "search": "--search", "hang_timeout_s": "--hang-timeout"}
"""Options of the command line that are not called as the arguments of the functions."""
NOT_THERE = {"experiment", "space", "progress", "should_stop", "trust", "address", "apply"}
"""Arguments of the functions that mean nothing to a job, or something else."""


def print_text(text: str) -> None:
    """Print text as it arrives, without adding a line break."""
    print(text, end="", flush=True)


@dataclass(frozen=True)
class Submitted:
    """A job that was submitted to a Ray cluster.

    Attributes:
        id: Id of the job; `metaray jobs status ID` shows it.
        run: Name of the run or search that the job trains.
        client: Client of the cluster's job server.
    """

    id: str
    run: str
    client: JobsClient

    @property
    def job(self) -> Job:
        """The current state of the job."""
        return self.client.job(self.id)

    def logs(self) -> str:
        """The job's output so far."""
        return self.client.logs(self.id)

    def wait(self, write: Callable[[str], None] = print_text) -> Job:
        """Show the job's output until the job ends, and return its final state.

        Args:
            write: Function that is called with each piece of output.
        """
        return follow_job(self.client, self.id, write)

    def __str__(self) -> str:
        return f"job: {self.id}\nrun: {self.run}"


def submit(
    recipe: str,
    *,
    command: str = "train",
    address: str | None = None,
    local_to_head: bool = False,
    insecure: bool = False,
    python: str | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    note: Callable[[str], None] = lambda text: None,
    **options: Any,
) -> Submitted:
    """Submit a recipe as a job of a Ray cluster, which runs `metaray.train` or `metaray.tune` there.

    Example: `metaray.submit("jobs/omniglot.py:maml_5way_1shot", workers=4, storage="s3://bucket/runs",
    tracking_uri="https://mlflow.example.org", address="https://head:8265").wait()`.

    Args:
        recipe: `path/to/file.py:function`, or the JSON file of an experiment, in the working directory or below.
        command: "train" or "tune".
        address: URL of Ray's dashboard; None takes RAY_API_SERVER_ADDRESS, or RAY_ADDRESS where that is a URL.
        local_to_head: Whether to accept that results are kept on the head node alone.
        insecure: Whether to accept plain HTTP to another machine, and a cluster without authentication.
        python: Path of the Python on the head node that has the job's packages; None takes that of Ray.
        include: Patterns of files to send, besides those that git tracks and those that the recipe imports.
        exclude: Patterns of files not to send.
        note: Function that is called with messages about what is sent.
        options: Options of `metaray.train` or `metaray.tune`; besides these, `settings`, a list of `key=value`, and for
            "tune" `search`, a list of `key=domain`.

    Returns:
        The submitted job, whose `wait()` follows it to its end.

    Raises:
        InputError: If the input is invalid; nothing has been sent then.
    """
    words = words_of(command, recipe, options)
    given = _defaults(command) | {"recipe": recipe, "settings": None, "search": None} | options
    patterns = tuple(include), tuple(exclude)
    where = cluster_address(address)
    order, files = order_of(command, words, given, where, python, patterns, local=local_to_head)
    return sent(order, files, given["storage"], where, insecure=insecure, note=note)


def words_of(command: str, recipe: str, options: Mapping[str, Any]) -> list[str]:
    """The command line arguments that are equivalent to a call of `submit`.

    Args:
        command: "train" or "tune".
        recipe: Recipe, the command's first argument.
        options: Keyword arguments of the call, by name.

    Raises:
        InputError: If there is no such command or option.
    """
    known = {*_defaults(command), "settings", *(["search"] if command == "tune" else [])}
    words = [recipe]
    for name, value in options.items():
        if name not in known:
            raise unknown(f"option of {command}", name, known)
        option = OPTIONS.get(name, f"--{name.replace('_', '-')}")
        if value is None or (value is False and name != "register"):
            continue
        if isinstance(value, bool):
            words.append(option if value else f"--no-{name}")
            continue
        several = [value] if isinstance(value, str) or not isinstance(value, Sequence) else value
        words += [word for one in several for word in (option, str(one))]
    return words


def _defaults(command: str) -> dict[str, Any]:
    if command not in COMMANDS:
        raise unknown("command to submit", command, COMMANDS)
    found = inspect.signature(COMMANDS[command]).parameters.values()
    return {
        one.name: one.default
        for one in found
        if one.name not in NOT_THERE | ({"search"} if command == "tune" else set())
    }


def sent(
    order: Order, files: Pack, storage: str, address: str, *, insecure: bool, note: Callable[[str], None]
) -> Submitted:
    """Upload an order and its files, and start the job.

    Raises:
        InputError: If the cluster or the storage cannot be used, or the run is busy.
    """
    expected = versions()
    client = connect(address, insecure=insecure, runs_code=True)
    check_versions(client, expected)
    check_bucket(storage, note)
    return Submitted(send(client, order, files, expected, note), order.run, client)


def order_of(
    command: str,
    words: Sequence[str],
    given: Mapping[str, Any],
    address: str,
    python: str | None,
    patterns: Patterns,
    *,
    local: bool,
) -> tuple[Order, Pack]:
    """The order for a job and the files it needs; every error that can be known in advance is raised here.

    Args:
        command: "train" or "tune".
        words: Arguments of the command.
        given: The same arguments, by the options' names.
        address: Address of the cluster.
        python: Python interpreter that runs the job there; None takes the one that runs Ray.
        patterns: Patterns of the files to send and to leave out.
        local: Whether to accept that results are kept on the head node's disk.

    Raises:
        InputError: If something is wrong; the message says what.
    """
    check_secrets(words)
    changes = {
        "--storage": lasting_storage(given["storage"], local=local),
        "--tracking-uri": lasting_tracking(
            given["tracking_uri"], os.environ.get("MLFLOW_TRACKING_URI"), address, local=local
        ),
    }
    if given.get("apply") is not None:
        raise InputError("--apply would write on the cluster; the winner is in the storage, as RUN/winner.json")
    name = described(command, given)
    if given["run"] is None:
        name = fresh_name(name)
        changes["--run"] = name
    recipe = given["recipe"]
    named, files = packed(recipe, patterns)
    there = [named if named is not None and word == recipe else word for word in words]
    order = Order(given["run"] or name, (command, *there), python, git_state(Path.cwd()))
    return with_options(order, changes), files


def packed(recipe: str | None, patterns: Patterns) -> tuple[str | None, Pack]:
    """Pack the files of a recipe; returns the recipe's name inside the pack, and the pack."""
    folder = Path.cwd()
    named, file = shipped_recipe(recipe, folder) if recipe is not None else (None, None)
    needed = imported(folder) if file is None else (file, *imported(folder))
    return named, pack(Project(folder, needed, *patterns), Path(metaray.__file__).parent, versions()["metaray"])


def described(command: str, given: Mapping[str, Any]) -> str:
    """Load the recipe and check the options that change it; returns the name that a run would have.

    Raises:
        InputError: If the recipe or an option is invalid.
    """
    if given["run"] is not None:
        check_name(given["run"], "run name")
    recipe, settings = given["recipe"], given["settings"] or []
    if command == "train":
        places = {field.name for field in fields(Placement)} - {"workers", "address"}
        Placement(Workers.parse(str(given["workers"])), **{key: given[key] for key in places & given.keys()})
        return override(load_recipe(recipe), settings).name
    if recipe is None:
        if given["run"] is None:
            raise InputError("give a RECIPE to search, or the --run NAME of a search that is to go on")
        return ""
    changes = {key: given[key] for key in Search.model_fields if given.get(key) is not None}
    return f"{describe(recipe, given['search'] or [], settings, changes).experiment.name}-search"
