"""The folder of a learner, as it is read back: whole, of a known format, and with numbers that make sense."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load, save

from metaray.algorithms.algorithm import MOST_INNER_STEPS
from metaray.algorithms.context import Tensors, not_finite
from metaray.config import Config
from metaray.errors import InputError
from metaray.json_text import parse_object
from metaray.manifest import Damaged, sealed, unsealed
from metaray.models.state import is_marks

DESCRIPTION = "learner.json"
PARAMETERS = "parameters.safetensors"
STATE = "state.safetensors"
ENCODER = "encoder.safetensors"
FORMAT, FORMAT_WITH_STATE, FORMAT_WITH_ENCODER, FORMAT_LINKED = 1, 2, 3, 4
"""The second is that of a learner whose network holds more than what is trained, which older versions would ignore; the
third that of one with an encoder before its network, whatever this holds; the fourth that of one whose encoder, before
its network or in it, lies elsewhere, see `metaray.learners.encoder_link`."""
_KEYS = {"algorithm", "model", "preprocessing", "spec", "inner_steps", "provenance"}


def right_format(*, stateful: bool, encoded: bool, linked: bool) -> int:
    """Format number of the files of a learner with these properties."""
    if linked:
        return FORMAT_LINKED
    return FORMAT_WITH_ENCODER if encoded else FORMAT_WITH_STATE if stateful else FORMAT


class _Numbers(Config):
    """The plain numbers of a description, as `Learner` has them; older files lack those with a default."""

    inner_steps: Annotated[int, Field(ge=0, le=MOST_INNER_STEPS, strict=True)] | None
    step: int = Field(default=0, ge=0, strict=True)
    seed: int = Field(default=0, ge=0, lt=2**64, strict=True)
    classes: int = Field(default=0, ge=0, strict=True)


class Contents(NamedTuple):
    """The contents of a learner's folder.

    Attributes:
        description: Description of the learner, with defaults for fields that older files omit.
        meta: The meta-parameters.
        state: Frozen parameters and persistent buffers of the network.
        encoder: Weights of the encoder that comes before the network; empty if there is none.
    """

    description: dict[str, Any]
    meta: Tensors
    state: Tensors
    encoder: Tensors


def learner_files(
    description: Mapping[str, Any], meta: Tensors, state: Tensors | None, encoder: Tensors | None = None
) -> dict[str, bytes]:
    """The files of a learner by name; the manifest is last.

    Args:
        description: Description in JSON types.
        meta: The meta-parameters.
        state: Frozen parameters and persistent buffers of the network; None for a learner without any.
        encoder: Weights of the encoder that comes before the network; empty if there is none.
    """
    text = json.dumps(description, indent=2, sort_keys=True) + "\n"
    files = {DESCRIPTION: text.encode(), PARAMETERS: save(_plain(meta))}
    files |= {} if state is None else {STATE: save(_plain(state))}
    return sealed(files | ({ENCODER: save(_plain(encoder))} if encoder else {}))


def read_folder(folder: Path) -> Contents:
    """Read the folder of a learner. Nothing is unpickled, and no network is built.

    Raises:
        InputError: If the folder is damaged or is not a learner's, or its description is incomplete or invalid.
    """
    try:
        files = unsealed(lambda name: (folder / name).read_bytes())
    except (Damaged, OSError) as error:
        raise InputError(f"{folder} does not hold a whole learner: {error}") from None
    return contents_of(folder, files)


def contents_of(folder: Path, files: Mapping[str, bytes]) -> Contents:
    """Read a learner from the files of a folder, by name, whose checksums have been verified.

    Raises:
        InputError: If they are not a learner's files, or the description is incomplete or invalid; the message names
            `folder`.
    """
    try:
        description, meta = parse_object(files[DESCRIPTION], where=DESCRIPTION), load(files[PARAMETERS])
        state, encoder = (load(files[name]) if name in files else {} for name in (STATE, ENCODER))
    except KeyError as missing:
        raise InputError(f"{folder} does not hold a whole learner: no {missing}") from None
    except (ValueError, SafetensorError) as error:
        raise InputError(f"{folder} does not hold a whole learner: {error}") from None
    if (bad := not_finite(meta)) is not None:  # not of the state, whose buffers may be masks of -inf
        raise InputError(f"{folder / PARAMETERS}: parameter {bad} holds values that are not finite (NaN or infinite)")
    known = (FORMAT, FORMAT_WITH_STATE, FORMAT_WITH_ENCODER, FORMAT_LINKED)
    if description.get("format") not in known:
        formats = ", ".join(map(str, known))
        raise InputError(f"{folder} has format {description.get('format')}; this metaray reads formats {formats}")
    encoded, stateful = description["format"] == FORMAT_WITH_ENCODER, STATE in files
    free = encoded or description["format"] == FORMAT_LINKED
    for name, is_there, is_due in (
        (ENCODER, ENCODER in files, encoded),
        (STATE, stateful, stateful if free else description["format"] == FORMAT_WITH_STATE),
    ):
        if is_there != is_due:
            raise InputError(f"{folder} has format {description['format']}, but {'no' if is_due else 'also'} {name}")
    absent = (_KEYS | ({"rebuilt"} if stateful else set())) - description.keys()
    if absent:
        raise InputError(f"{folder / DESCRIPTION} lacks {', '.join(sorted(absent))}")
    if not isinstance(description["provenance"], dict):
        raise InputError(
            f"{folder / DESCRIPTION}: provenance must be a JSON object (got {description['provenance']!r})"
        )
    given = {name: description[name] for name in _Numbers.model_fields if name in description}
    description.setdefault("rebuilt", {})
    if not is_marks(description["rebuilt"]):
        raise InputError(f"{folder / DESCRIPTION}: rebuilt does not describe tensors")
    description |= _Numbers.parse(given, where=str(folder / DESCRIPTION)).model_dump()
    if "task" not in description:
        # Files of before there were kinds of tasks say how many values a target has, or none of classes.
        size = description.pop("target_size", None)
        description["task"] = (
            {"kind": "classification"} if size is None else {"kind": "regression", "target_size": size}
        )
    if isinstance(description["algorithm"], dict):
        # A file that does not say was written when this was the default.
        description["algorithm"] = {"batch_norm": "transductive", **description["algorithm"]}
    if isinstance(description["preprocessing"], dict):
        # Files of before there were others do not say that theirs is of images.
        description["preprocessing"] = {"kind": "image", **description["preprocessing"]}
    # Copies: what safetensors hands out lies at any offset of the file, and kernels may round differently there.
    copied = ({name: tensor.clone() for name, tensor in one.items()} for one in (meta, state, encoder))
    return Contents(description, *copied)


def _plain(tensors: Tensors) -> Tensors:
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
