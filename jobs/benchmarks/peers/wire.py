"""What metaray's process and a peer's say to each other through a pipe: words in JSON and arrays in numpy's format.

The peer's environment has neither metaray nor what it needs, so everything here does with numpy.
"""

import io
import json
import struct
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

HEAD = struct.Struct("<QQ")
WEIGHT, SIDES = "weight/", ("support_x", "support_y", "query_x", "query_y")
"""Under which names weights and episodes are handed over."""
Arrays = dict[str, NDArray[Any]]


class Message(NamedTuple):
    """One of either side.

    Attributes:
        words: JSON types by name.
        arrays: by name.
    """

    words: dict[str, Any]
    arrays: Arrays


class Method(NamedTuple):
    """What a peer is to compute of a meta-batch: the loss of its queries, and the gradient of that.

    Attributes:
        kind: "maml", "fomaml", "anil", "protonet" or "r2d2", under transductive batch norm.
        ways: classes of an episode.
        dtype: "float32" or "bfloat16", which is that of the network's arithmetic alone.
        rate: of inner steps.
        steps: of them.
        outer_lr: Adam's.
    """

    kind: str
    ways: int
    dtype: str = "float32"
    rate: float = 0.05
    steps: int = 1
    outer_lr: float = 1e-6


def send(stream: BinaryIO, words: dict[str, Any], arrays: Arrays | None = None) -> None:
    """Write one message, and see that it arrives."""
    head, packed = json.dumps(words).encode(), io.BytesIO()
    np.savez(packed, **(arrays or {}))  # type: ignore[arg-type]
    body = packed.getvalue()
    stream.write(HEAD.pack(len(head), len(body)) + head + body)
    stream.flush()


def receive(stream: BinaryIO) -> Message:
    """Read one message.

    Raises:
        EOFError: if the other side has closed the pipe, or breaks off within a message.
    """
    head_size, body_size = HEAD.unpack(_exactly(stream, HEAD.size))
    words = json.loads(_exactly(stream, head_size))
    with np.load(io.BytesIO(_exactly(stream, body_size))) as packed:
        return Message(words, {name: packed[name] for name in packed.files})


def _exactly(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise EOFError(f"the pipe was closed: {len(data)} of {size} bytes came")
    return data
