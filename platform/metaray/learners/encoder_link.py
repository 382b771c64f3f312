"""A learner whose encoder lies elsewhere, once for all learners that have it: a link by content, not by name alone.

The weights of an encoder are a file of safetensors under `blobs/SHA256` of some storage. A linked learner's folder
holds its digest and where it lies, and everything else; it is not loaded without these very weights.
"""

import hashlib
import os
from collections.abc import Mapping
from typing import Any

from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from metaray.algorithms.context import Tensors
from metaray.config import Config
from metaray.data.cache import CACHE, cache_folder
from metaray.data.servers import shown
from metaray.data.weights import ALIGNED, FOLDER, held_weights
from metaray.errors import InputError

BLOBS = "blobs"
ELSEWHERE = "METARAY_BLOBS"
"""Environment variable with the folder or URI of a storage whose `blobs` hold encoders that have been moved."""
BODY = "body."
"""Prefix of the names of an encoder's tensors in a network that has a head behind it."""


class EncoderLink(Config):
    """The place of the weights of a learner's encoder.

    Attributes:
        sha256: SHA-256 (hex) of the file.
        at: Path or URI of the file.
    """

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    at: str = Field(min_length=1)


def blob_of(tensors: Tensors) -> tuple[str, bytes]:
    """Name and bytes of the file of an encoder's tensors; the name is its SHA-256, equal for equal encoders."""
    plain = {name: tensors[name].detach().cpu().contiguous().clone() for name in sorted(tensors)}
    data = save(plain)
    return hashlib.sha256(data).hexdigest(), data


def body_of(state: Tensors) -> tuple[Tensors, Tensors]:
    """A network's frozen tensors as those of its encoder, by the encoder's own names, and the others."""
    body = {name.removeprefix(BODY): tensor for name, tensor in state.items() if name.startswith(BODY)}
    return body, {name: tensor for name, tensor in state.items() if not name.startswith(BODY)}


def with_body(state: Tensors, body: Tensors) -> Tensors:
    """The inverse of `body_of`."""
    return {**state, **{f"{BODY}{name}": tensor for name, tensor in body.items()}}


def linked_tensors(description: Mapping[str, Any], where: str) -> tuple[EncoderLink, Tensors]:
    """The weights of the encoder that a learner's description links to, memory-mapped.

    They are read from the node's cache, or else from the place of the link.

    Args:
        description: Description of the learner, as its folder holds it.
        where: Place that the description was read from, for messages.

    Raises:
        InputError: If the weights are not found or have changed; the message names them and the places tried.
    """
    link = EncoderLink.parse(description.get("linked", {}), where=f"{where}: linked")
    places = [link.at]
    if elsewhere := os.environ.get(ELSEWHERE):
        root, mark, options = elsewhere.partition("?") if "://" in elsewhere else (elsewhere, "", "")
        places.insert(0, f"{root.rstrip('/')}/{BLOBS}/{link.sha256}{mark}{options}")
    problems = []
    for place in places:
        try:
            path = held_weights(place, link.sha256).path
            with safe_open(path, "pt") as file:
                tensors = {name: _aligned(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
            return link, tensors
        except (InputError, SafetensorError, OSError) as error:
            problems.append(str(error))
    looked = ", ".join(map(shown, places))
    raise InputError(
        f"{where}: its encoder is linked, and it is no learner without: the weights with the SHA-256 {link.sha256} are "
        f"neither in this node's cache ({cache_folder(FOLDER)}, see {CACHE}) nor at {looked} ({'; '.join(problems)}). "
        f"Bring them back there, or set {ELSEWHERE} to the storage that has {BLOBS}/{link.sha256}"
    )


def _aligned(tensor: Any) -> Any:
    """The tensor at an address as kernels like it: at other addresses they may round differently."""
    return tensor if tensor.data_ptr() % ALIGNED == 0 else tensor.clone()
