"""Whether a file of weights fits a network, and its tensors by the names that the network has."""

from collections.abc import Mapping, Sequence

from safetensors import safe_open
from torch import Tensor

from metaray.data.encoder_folder import EncoderFolder
from metaray.data.names import some
from metaray.data.servers import shown
from metaray.errors import InputError
from metaray.models.encoders.architecture import Architecture

SHOWN = 4


def fitting(path: str, sha256: str, architecture: Architecture, wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file, memory-mapped, under the names that a network has for them.

    Args:
        path: Path or URI of the encoder's folder or file.
        sha256: SHA-256 of the file of weights.
        architecture: Architecture of the weights.
        wanted: Tensors of the network by name, with the right shapes and types.

    Raises:
        InputError: If one side has tensors that the other lacks, or of another shape or type; the message names them.
    """
    weights = EncoderFolder(path).weights(sha256)
    tensors: dict[str, Tensor] = {}
    theirs: dict[str, str] = {}
    with safe_open(weights.path, "pt") as file:
        for name in file.keys():  # noqa: SIM118
            own = architecture.own_names(name)
            if not own or (own[0] not in wanted and architecture.is_optional(own[0])):
                continue
            theirs |= dict.fromkeys(own, name)
            tensors |= zip(own, _parts(file.get_tensor(name), len(own)), strict=True)
    where, kind = shown(path), architecture.kind
    missing, strange = sorted(wanted.keys() - tensors.keys()), sorted(theirs[own] for own in tensors.keys() - wanted)
    if missing or strange:
        lacks = f"lack {some(missing, SHOWN)} ({len(missing)})" if missing else ""
        holds = f"hold {some(strange, SHOWN)} ({len(strange)}), which it has no use for" if strange else ""
        raise InputError(
            f"{where}: the weights do not fit a {kind} network: they {' and '.join(filter(None, (lacks, holds)))}"
        )
    for one, tensor in tensors.items():
        if tensor.shape != wanted[one].shape:
            raise InputError(
                f"{where}: the weights do not fit: {theirs[one]} has the shape {list(tensor.shape)}, but {one} of the "
                f"{kind} network has {list(wanted[one].shape)}"
            )
        if tensor.dtype != wanted[one].dtype:
            raise InputError(
                f"{where}: the weights do not fit: {theirs[one]} holds {tensor.dtype}, but {one} of the {kind} network "
                f"has {wanted[one].dtype}"
            )
    return tensors


def _parts(tensor: Tensor, count: int) -> Sequence[Tensor]:
    """So many tensors of equal shapes; where it can't be cut, the tensor itself as often, whose shape is then wrong."""
    if count == 1 or not tensor.ndim or len(tensor) % count:
        return (tensor,) * count
    return tensor.chunk(count)
