"""Whether a file of weights fits a network, and its tensors by the names that the network has."""

from collections.abc import Iterator, Mapping, Sequence

from safetensors import safe_open
from torch import Tensor

from metaray.data.encoder_folder import EncoderFolder
from metaray.data.names import some
from metaray.data.servers import shown
from metaray.errors import InputError
from metaray.models.encoders.architecture import Architecture

SHOWN = 4
WRAPPERS = ("module.", "_orig_mod.", "0.auto_model.", "auto_model.", "model.", "backbone.", "encoder.")
"""What torch (`DataParallel`, `compile`), sentence-transformers and training scripts put before all names."""


def fitting(path: str, sha256: str, architecture: Architecture, wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file, memory-mapped, under the names that a network has for them.

    Args:
        path: Path or URI of the encoder's folder or file.
        sha256: SHA-256 of the file of weights.
        architecture: Architecture of the weights.
        wanted: Tensors of the network by name, with the right shapes and types.

    Raises:
        InputError: If one side has tensors that the other lacks, or of another shape or type, or a tensor holds values
            that are no finite numbers; the message names them.
    """
    weights = EncoderFolder(path).weights(sha256)
    tensors: dict[str, Tensor] = {}
    theirs: dict[str, str] = {}
    with safe_open(weights.path, "pt") as file:
        for name, own in _own_names([*file.keys()], architecture, wanted).items():
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
        _check_numbers(tensor, f"{where}: {theirs[one]}", infinite=not architecture.is_plain)
    return tensors


def _check_numbers(tensor: Tensor, where: str, *, infinite: bool) -> None:
    """Refuse what no training leaves: NaN, and infinity, but for masks that a module of the user's own may hold."""
    if not tensor.is_floating_point():
        return
    if not bool(tensor.sum().isfinite()):
        bad = tensor.isnan() if infinite else ~tensor.isfinite()
        if count := int(bad.sum()):
            raise InputError(
                f"{where} holds values that are no finite numbers of 32 bits ({count} of {tensor.numel()}): the file "
                "is damaged, or was trained until nothing was left of it"
            )
    if not infinite and where.endswith("running_var") and bool((tensor < 0).any()):
        raise InputError(f"{where} holds variances below zero")


def unwrapped(names: Sequence[str]) -> Iterator[Sequence[str]]:
    """The names of a file's tensors, then without what a wrapper has put before all of them, and so on."""
    yield names
    for word in WRAPPERS:
        if names and all(name.startswith(word) for name in names):
            yield from unwrapped([name.removeprefix(word) for name in names])


def _own_names(
    names: Sequence[str], architecture: Architecture, wanted: Mapping[str, Tensor]
) -> dict[str, tuple[str, ...]]:
    """What the network calls each tensor of a file; wrapped, if there is none of its own names otherwise."""
    tried = [dict(zip(names, map(architecture.own_names, bare), strict=True)) for bare in unwrapped(names)]
    return next((one for one in tried if not wanted.keys().isdisjoint(sum(one.values(), ()))), tried[0])


def _parts(tensor: Tensor, count: int) -> Sequence[Tensor]:
    """So many tensors of equal shapes; where it can't be cut, the tensor itself as often, whose shape is then wrong."""
    if count == 1 or not tensor.ndim or len(tensor) % count:
        return (tensor,) * count
    return tensor.chunk(count)
