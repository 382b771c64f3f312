"""How a run computes its meta-gradients: decided before its first step, and kept by whoever takes it up."""

from typing import Literal

from pydantic import Field

from metaray.config import Config
from metaray.records.checked_json import read_record, write_record
from metaray.records.storage import Storage

EXECUTION = "execution.json"


class Executed(Config):
    """How a run is computed, as recorded in `execution.json`.

    Runs without this file were computed episode by episode, as all runs were before it existed.

    Whoever resumes the run on this type of device keeps what affects bits. The place of the data is not kept: it is
    that of the last process, or of its rank 0.

    Attributes:
        kind: How a chunk is computed: "each" episode by itself, "batched", "compiled" or "graph".
        why: Reason why this differs from what was asked for; empty if it does not.
        device: Type of device that this was decided for.
        compiler: Identification of the compiler and its version; empty if nothing is compiled.
        convolutions: How the convolutions of a chunk, whose weights differ by episode, are computed: "plain" if
            episodes are computed one by one, "grouped" by torch's own kernels, or "unfolded"
            (`metaray.models.unfolded`). Empty in old records, when they were unfolded on a GPU.
        data_on: Place of the examples: "host" or "device"; empty in old records.
        most_workers: Largest number of workers that can take part; 0 in old records.
    """

    kind: Literal["each", "batched", "compiled", "graph"]
    why: str = ""
    device: str = "cpu"
    compiler: str = ""
    convolutions: Literal["", "plain", "grouped", "unfolded"] = ""
    data_on: Literal["", "host", "device"] = ""
    most_workers: int = Field(default=0, ge=0)

    @property
    def tags(self) -> dict[str, str]:
        """The record as tags for trackers, by name."""
        told = self.model_dump(mode="json", exclude={"kind"})
        return {"execution": self.kind} | {f"execution.{name}": str(value) for name, value in told.items() if value}


def read_executed(storage: Storage) -> Executed | None:
    """Read how a run is computed; None if nothing was recorded.

    Raises:
        InputError: If the file is damaged.
    """
    if not storage.exists(EXECUTION):
        return None
    return read_record(storage, EXECUTION, Executed, remedy="restore it from a copy, or train under another --run name")


def write_executed(storage: Storage, executed: Executed) -> None:
    """Record how a run is computed."""
    write_record(storage, EXECUTION, executed.model_dump(mode="json"))
