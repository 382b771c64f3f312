"""The preprocessing that a store file names: known kinds as themselves, a user's own as its JSON until it is asked for.

Whoever opens a store of somebody else's imports nothing that it names: only where an experiment allows for the package
does `resolved` import it.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, JsonValue, PlainSerializer

from metaray.config import Config
from metaray.data.preprocessing import PREPROCESSINGS, ImagePreprocessing, Preprocessing
from metaray.data.ragged import FeatureShape, shape_text
from metaray.errors import InputError
from metaray.imports import dump_kind, parse_kind, paths_in, require_findable

WHAT = "preprocessing"


class Named(Config):
    """A preprocessing of the user's own, known by its import path only.

    Attributes:
        tree: JSON of the preprocessing, with the import path as its `kind`.
    """

    tree: dict[str, JsonValue]


def _read(value: Any) -> Preprocessing | Named:
    if isinstance(value, Named | Preprocessing):
        return value
    if isinstance(value, Mapping) and "kind" not in value:  # files of before there were other kinds
        return ImagePreprocessing.parse(value, where=WHAT)
    if isinstance(value, Mapping) and paths_in(value):  # its own, or that of an encoder before it
        return Named(tree=dict(value))
    return parse_kind(value, PREPROCESSINGS, Preprocessing, what=WHAT)


def _write(value: Preprocessing | Named) -> dict[str, Any]:
    if isinstance(value, Named):
        return value.tree
    # Image stores keep their text, and so their fingerprints.
    return value.model_dump(mode="json") if type(value) is ImagePreprocessing else dump_kind(value, PREPROCESSINGS)


StoredPreprocessing = Annotated[Any, BeforeValidator(_read), PlainSerializer(_write)]


def stored(preprocessing: Preprocessing | Named) -> Preprocessing | Named:
    """The preprocessing in the form in which a file stores it.

    Raises:
        InputError: If its class cannot be found by an import path.
    """
    if isinstance(preprocessing, Named) or type(preprocessing) in PREPROCESSINGS.values():
        return preprocessing
    require_findable(type(preprocessing), what=WHAT)
    return Named(tree=dump_kind(preprocessing, PREPROCESSINGS))


def resolved(preprocessing: Preprocessing | Named, trust: tuple[str, ...]) -> Preprocessing:
    """The preprocessing itself, imported if it is the user's own.

    Args:
        preprocessing: Preprocessing of a store, or its name.
        trust: Packages besides metaray that it may be imported from.

    Raises:
        Untrusted: If it is in none of these packages.
        InputError: If it is not found there, or has changed.
    """
    if isinstance(preprocessing, Preprocessing):
        return preprocessing
    return parse_kind(preprocessing.tree, PREPROCESSINGS, Preprocessing, what=WHAT, trust=trust)


def check_prepared(preprocessing: Preprocessing, shape: FeatureShape, dtype: str, *, where: str) -> None:
    """Check that examples have the shape and type that their preprocessing returns.

    Raises:
        InputError: If they differ; the message names `where`, and both.
    """
    if (preprocessing.feature_shape, preprocessing.dtype) != (shape, dtype):
        raise InputError(
            f"{where}: its examples are {dtype} of shape {shape_text(shape)}, but preprocessing {preprocessing.kind!r} "
            f"makes {preprocessing.dtype} of shape {shape_text(preprocessing.feature_shape)}"
        )


def prepared(
    preprocessing: Preprocessing | Named, shape: FeatureShape, dtype: str, *, trust: tuple[str, ...], where: str
) -> Preprocessing:
    """The preprocessing of the store named `where`, after checking that its examples fit it.

    Raises:
        Untrusted: If `resolved` raises it.
        InputError: If `resolved` or `check_prepared` raises it.
    """
    try:
        found = resolved(preprocessing, trust)
    except InputError as error:
        error.args = (f"{where}: {error}", *error.args[1:])
        raise
    check_prepared(found, shape, dtype, where=where)
    return found
