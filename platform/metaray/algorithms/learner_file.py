"""The folder of a learner, as it is read back: whole, of a known format, and with numbers that make sense."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load

from metaray.algorithms.algorithm import MOST_INNER_STEPS
from metaray.algorithms.context import Tensors, not_finite
from metaray.config import Config
from metaray.errors import InputError
from metaray.json_text import parse_object
from metaray.manifest import Damaged, unsealed

DESCRIPTION = "learner.json"
PARAMETERS = "parameters.safetensors"
FORMAT = 1
_KEYS = {"algorithm", "model", "preprocessing", "spec", "inner_steps", "provenance"}


class _Numbers(Config):
    """The plain numbers of a description, as `Learner` has them; older files lack those with a default."""

    inner_steps: Annotated[int, Field(ge=0, le=MOST_INNER_STEPS, strict=True)] | None
    step: int = Field(default=0, ge=0, strict=True)
    seed: int = Field(default=0, ge=0, lt=2**64, strict=True)
    target_size: Annotated[int, Field(ge=1, strict=True)] | None = None
    classes: int = Field(default=0, ge=0, strict=True)


def read_folder(folder: Path) -> tuple[dict[str, Any], Tensors]:
    """The description, with what older files leave out filled in, and the parameters. Nothing is unpickled or built.

    Raises:
        InputError: if the folder is damaged or no learner, or its description lacks or garbles something.
    """
    try:
        files = unsealed(lambda name: (folder / name).read_bytes())
        description, meta = parse_object(files[DESCRIPTION], where=DESCRIPTION), load(files[PARAMETERS])
    except KeyError as missing:
        raise InputError(f"{folder} does not hold a whole learner: no {missing}") from None
    except (Damaged, ValueError, OSError, SafetensorError) as error:
        raise InputError(f"{folder} does not hold a whole learner: {error}") from None
    if (name := not_finite(meta)) is not None:
        raise InputError(f"{folder / PARAMETERS}: parameter {name} holds values that are not finite (NaN or infinite)")
    if description.get("format") != FORMAT:
        raise InputError(f"{folder} has format {description.get('format')}; this metaray reads format {FORMAT}")
    absent = _KEYS - description.keys()
    if absent:
        raise InputError(f"{folder / DESCRIPTION} lacks {', '.join(sorted(absent))}")
    if not isinstance(description["provenance"], dict):
        raise InputError(
            f"{folder / DESCRIPTION}: provenance must be a JSON object (got {description['provenance']!r})"
        )
    given = {name: description[name] for name in _Numbers.model_fields if name in description}
    description |= _Numbers.parse(given, where=str(folder / DESCRIPTION)).model_dump()
    if isinstance(description["preprocessing"], dict):
        # Files of before there were others do not say that theirs is of images.
        description["preprocessing"] = {"kind": "image", **description["preprocessing"]}
    return description, meta
