"""How a run computes its meta-gradients: decided before its first step, and kept by whoever takes it up."""

from typing import Literal

from metaray.config import Config
from metaray.records.checked_json import read_record, write_record
from metaray.records.storage import Storage

EXECUTION = "execution.json"


class Executed(Config):
    """What `execution.json` says; a run without one goes line by line.

    Attributes:
        kind: "each" episode of a chunk by itself, "batched", "compiled" or "graph".
        why: it is not what was asked for; empty where it is.
        device: the type of device that this was decided for.
        compiler: what stands for the compiler and its version; empty where nothing is compiled.
    """

    kind: Literal["each", "batched", "compiled", "graph"]
    why: str = ""
    device: str = "cpu"
    compiler: str = ""


def read_executed(storage: Storage) -> Executed | None:
    """What was decided for a run; None where nothing was written down.

    Raises:
        InputError: If the file is damaged.
    """
    if not storage.exists(EXECUTION):
        return None
    return read_record(storage, EXECUTION, Executed, remedy="restore it from a copy, or train under another --run name")


def write_executed(storage: Storage, executed: Executed) -> None:
    """Write it down."""
    write_record(storage, EXECUTION, executed.model_dump(mode="json"))
