"""How a run computes its meta-gradients: decided before its first step, and kept by whoever takes it up."""

from typing import Literal

from pydantic import Field

from metaray.config import Config
from metaray.records.checked_json import read_record, write_record
from metaray.records.storage import Storage

EXECUTION = "execution.json"


class Executed(Config):
    """What `execution.json` says; a run that has gone without one went line by line, as all did before there were any.

    What concerns bits is followed by whoever takes the run up on such a device. Where the data are is not: it is that
    of the last process, or of rank 0 there.

    Attributes:
        kind: "each" episode of a chunk by itself, "batched", "compiled" or "graph".
        why: It is not what was asked for; empty where it is.
        device: The type of device that this was decided for.
        compiler: What stands for the compiler and its version; empty where nothing is compiled.
        convolutions: Those of a chunk, whose weights differ by episode: "plain" where episodes are computed one by one,
            "grouped" by torch's own kernels, or "unfolded" (`metaray.models.unfolded`); empty in records of before that
            was written down, when they were unfolded on a GPU.
        data_on: Where the examples are: on the "host" or on the "device"; empty in such records.
        most_workers: How many workers can ever take part; 0 in such records.
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
        """What there is to say of it, by name, for trackers."""
        told = self.model_dump(mode="json", exclude={"kind"})
        return {"execution": self.kind} | {f"execution.{name}": str(value) for name, value in told.items() if value}


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
