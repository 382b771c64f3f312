"""What a search was asked for about where and how it runs, kept beside it: so it goes on as it was begun."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metaray.api.search_end import WINNER
from metaray.api.search_options import SearchOptions
from metaray.config import NAME, Config
from metaray.errors import InputError, redacted
from metaray.json_text import parse_object
from metaray.records.storage import Storage
from metaray.tracking.server import MlflowServer
from metaray.tuning.capacity import Shares

OPTIONS_FILE = "options.json"
HIDDEN = "***"


class Asked(Config):
    """The options that a user gave for a search, by their names on the command line; None if not given.

    Attributes:
        workers_per_trial: Number of Ray Train workers of each trial.
        samplers: Number of sampler actors of each trial that has workers.
        cpus_per_worker: Number of CPUs that each worker or trial reserves.
        gpus_per_trial: Number of GPUs that a trial of one process reserves.
        concurrent: Number of trials that run at once.
        device: Device: "auto", "cpu" or "cuda".
        address: Address of a running Ray cluster.
        hang_timeout: Seconds without progress after which a worker is replaced.
        tracking_uri: URI of MLflow, without passwords.
        registered: Whether to register the winner; named so because pydantic's BaseModel has a `register` already.
        promote: Whether to make the winner @champion whatever the comparison says.
        link_encoder: Whether to keep the winner's frozen encoder in the storage, not in the version.
        apply: File to write the winner's experiment to.
    """

    workers_per_trial: int | None = None
    samplers: int | None = None
    cpus_per_worker: float | None = None
    gpus_per_trial: float | None = None
    concurrent: int | None = None
    device: str | None = None
    address: str | None = None
    hang_timeout: float | None = None
    tracking_uri: str | None = None
    registered: bool | None = None
    promote: bool | None = None
    link_encoder: bool | None = None
    apply: str | None = None

    @property
    def text(self) -> str:
        """The options as words of a command line."""
        words = []
        for name, value in self.model_dump(exclude_none=True).items():
            if name == "registered":
                words.append("--register" if value else "--no-register")
            elif value is True:
                words.append(f"--{name.replace('_', '-')}")
            else:
                words.append(f"--{name.replace('_', '-')} {value}")
        return " ".join(words)


def options_of(
    name: str | None, storage: str, given: Mapping[str, Any], *, verify: bool = False
) -> tuple[SearchOptions, Asked]:
    """The options of a search: those given now, else those it was begun with, else the defaults.

    Args:
        name: Name of the search; None makes a new one.
        storage: Folder or URI of all runs.
        given: The options of this call, by the names of `Asked`; None for those that were not given.
        verify: Whether to compare the data with their fingerprint in this call.

    Returns:
        All options, and those that were remembered from an earlier call.

    Raises:
        InputError: If the search needs a password again, which is never written down.
    """
    said = {key: value for key, value in given.items() if value is not None}
    before = _remembered(name, storage, said)
    told = Asked.parse(before | said, where="options of the search")
    options = SearchOptions(
        shares=Shares(
            workers=told.workers_per_trial or 0,
            samplers=told.samplers or 2,
            cpus=told.cpus_per_worker or 1.0,
            gpus=told.gpus_per_trial or 1.0,
            concurrent=told.concurrent,
        ),
        device=told.device or "auto",
        address=told.address,
        hang_timeout_s=told.hang_timeout or 300.0,
        name=name,
        storage=storage,
        tracking_uri=said.get("tracking_uri", told.tracking_uri),
        register=told.registered is not False,
        promote=bool(told.promote),
        link_encoder=bool(told.link_encoder),
        apply=Path(told.apply) if told.apply is not None else None,
        verify=verify,
    )
    return options, Asked.parse(before, where="options of the search")


def _remembered(name: str | None, storage: str, said: Mapping[str, Any]) -> dict[str, Any]:
    """What was asked for before, and is not said now."""
    if name is None or not NAME.fullmatch(name):
        return {}
    folder = Storage(storage).child(name)
    if not folder.exists(OPTIONS_FILE):
        return {}
    where = f"options of the search in {folder.shown}"
    found = Asked.parse(parse_object(folder.read(OPTIONS_FILE), where=where), where=where).model_dump(exclude_none=True)
    left_out = set(said)
    if said.get("registered") is False:
        left_out |= {"promote", "link_encoder"}
    if said.get("promote") or said.get("link_encoder"):
        left_out.add("registered")
    if folder.exists(WINNER):
        left_out.add("apply")  # it is written, and may have been edited since
    if os.environ.get("RAY_ADDRESS"):
        left_out.add("address")
    kept = {key: value for key, value in found.items() if key not in left_out}
    if HIDDEN in kept.get("tracking_uri", ""):
        raise InputError(
            f"search {name!r} was begun with --tracking-uri {kept['tracking_uri']}: give it again, as passwords are "
            "not written down"
        )
    return kept


def remember(folder: Storage, options: SearchOptions) -> None:
    """Store the options with which a search runs from now on.

    Args:
        folder: Folder of the search.
        options: The options to store.
    """
    usual, shares, unshared = SearchOptions(), options.shares, Shares(gpus=1.0)
    uri = redacted(MlflowServer.of(options.tracking_uri).uri) if options.tracking_uri else None
    asked = Asked(
        workers_per_trial=_unusual(shares.workers, unshared.workers),
        samplers=_unusual(shares.samplers, unshared.samplers),
        cpus_per_worker=_unusual(shares.cpus, unshared.cpus),
        gpus_per_trial=_unusual(shares.gpus, unshared.gpus) or None,
        concurrent=shares.concurrent,
        device=_unusual(options.device, usual.device),
        address=options.address,
        hang_timeout=_unusual(options.hang_timeout_s, usual.hang_timeout_s),
        tracking_uri=uri,
        registered=_unusual(options.register, usual.register),
        promote=options.promote or None,
        link_encoder=options.link_encoder or None,
        apply=str(options.apply.absolute()) if options.apply else None,
    )
    text = (json.dumps(asked.model_dump(exclude_none=True), indent=2) + "\n").encode()
    if not folder.exists(OPTIONS_FILE) or folder.read(OPTIONS_FILE) != text:
        folder.write(OPTIONS_FILE, text)


def _unusual(value: Any, usual: Any) -> Any:
    return None if value == usual else value
